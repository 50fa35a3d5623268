//! A page for people: every ratio as a bar on a logarithmic axis, on which Linux is the line at 1.
//! It needs no other file, no script and no network, and follows the reader's light or dark mode.

use std::fmt::Write;

use super::results::{Line, Report, Summary, Unit};
use super::text::{figure, quotient, shown};

const STYLE: &str = include_str!("page.css");

/// The whole page.
pub fn page(report: &Report) -> String {
    let mut lines: Vec<(&Line, f64)> =
        report.lines.iter().filter_map(|line| line.ratio().map(|ratio| (line, ratio))).collect();
    lines.sort_by(|a, b| a.1.total_cmp(&b.1));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Pollux and Linux: the cost of system calls</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>Pollux and Linux</h1>\n\
         <p>What an operation of the kernel costs on Pollux, as a part of what the same program, on the same file \
         system, in the same virtual machine, pays for it on Linux.</p>\n\
         <p class=\"soft\">{}</p>\n{}{}{}{}</main>\n</body>\n</html>\n",
        escape(&report.versions),
        tiles(report, &lines),
        chart(report, &lines),
        others(report),
        method(report),
    )
}

fn tiles(report: &Report, lines: &[(&Line, f64)]) -> String {
    let mut text = String::from("<dl class=\"tiles\">\n");
    let mut tile = |value: String, what: &str| {
        let _ = writeln!(text, "<div><dt>{what}</dt><dd>{value}</dd></div>");
    };
    if let Some((mean, count)) = report.mean(|_| true) {
        tile(format!("{mean:.2}"), &format!("of Linux’s cost: the geometric mean of {count} operations"));
    }
    if let Some((mean, count)) = report.mean(|line| line.goal.is_some()) {
        tile(format!("{mean:.2}"), &format!("in the {count} operations that have a goal"));
        let reached = lines.iter().filter(|(line, ratio)| line.goal.is_some_and(|goal| *ratio <= goal)).count();
        tile(format!("{reached} <small>of {count}</small>"), "goals reached");
    }
    let cheaper = lines.iter().filter(|(_, ratio)| *ratio < 1.0).count();
    tile(format!("{cheaper} <small>of {}</small>", lines.len()), "operations cost less than on Linux");
    text + "</dl>\n"
}

/// A logarithmic axis over powers of two.
struct Axis {
    lowest: f64,
    highest: f64,
}

impl Axis {
    fn over(lines: &[(&Line, f64)]) -> Axis {
        let ratios = lines.iter().map(|(_, ratio)| ratio.log2());
        let (lowest, highest) = ratios.fold((-1.0, 1.0), |(low, high): (f64, f64), log| (low.min(log), high.max(log)));
        Axis { lowest: lowest.floor(), highest: highest.ceil() }
    }

    /// Where a ratio is, in hundredths of the width.
    fn place(&self, ratio: f64) -> f64 {
        (ratio.log2() - self.lowest) / (self.highest - self.lowest) * 100.0
    }

    fn ticks(&self) -> impl Iterator<Item = (f64, String)> {
        (self.lowest as i32..=self.highest as i32).map(|power| {
            let name = if power < 0 { format!("1⁄{}", 1u64 << -power) } else { format!("{}", 1u64 << power) };
            (2f64.powi(power), name)
        })
    }
}

fn chart(report: &Report, lines: &[(&Line, f64)]) -> String {
    let axis = Axis::over(lines);
    let unit = match report.unit {
        Unit::Instructions => "instructions",
        Unit::Nanoseconds { .. } => "nanoseconds",
    };
    let timed = report.unit != Unit::Instructions;
    let spread_head = if timed { "<th scope=\"col\" class=\"number wide\">spread</th>" } else { "" };
    let mut text = format!(
        "<ul class=\"key\"><li><span class=\"less\"></span>costs less than on Linux</li>\
         <li><span class=\"more\"></span>costs more</li><li><span class=\"goal\"></span>goal</li></ul>\n\
         <div class=\"scroll\"><table>\n<caption>Cost on Pollux divided by cost on Linux, least first; \
         {unit} per operation. The axis is logarithmic, Linux is the line at 1.</caption>\n\
         <thead><tr><th scope=\"col\">operation</th><th scope=\"col\" class=\"chart\" aria-label=\"bar\">\
         <div class=\"axis\">{}</div></th><th scope=\"col\" class=\"number\">ratio</th>\
         <th scope=\"col\" class=\"number wide\">Pollux</th><th scope=\"col\" class=\"number wide\">Linux</th>\
         {spread_head}</tr></thead>\n<tbody>\n",
        axis_labels(&axis)
    );
    for (line, ratio) in lines {
        let linux = line.linux.as_ref().map(shown).unwrap_or_default();
        let spread = match timed {
            true => format!("<td class=\"number wide\">{:.0} %</td>", line.spread() * 100.0),
            false => String::new(),
        };
        let _ = writeln!(
            text,
            "<tr><th scope=\"row\">{}</th><td class=\"chart\" aria-hidden=\"true\">{}</td>\
             <td class=\"number ratio\">{}</td><td class=\"number wide\">{}</td>\
             <td class=\"number wide\">{linux}</td>{spread}</tr>",
            escape(&line.name),
            bar(&axis, line, *ratio),
            quotient(*ratio),
            shown(&line.pollux),
        );
    }
    text + "</tbody>\n</table></div>\n"
}

fn axis_labels(axis: &Axis) -> String {
    // So many that they do not touch; on a small screen, every third of them.
    let each = ((axis.highest - axis.lowest) / 9.0).ceil() as i32;
    let mut text = String::new();
    for (ratio, name) in axis.ticks() {
        let power = ratio.log2() as i32;
        let class = match power {
            0 => " class=\"one\"",
            _ if power % (3 * each) == 0 => "",
            _ => " class=\"between\"",
        };
        if power % each == 0 {
            let _ = write!(text, "<span{class} style=\"left:{:.2}%\">{name}</span>", axis.place(ratio));
        }
    }
    text
}

fn bar(axis: &Axis, line: &Line, ratio: f64) -> String {
    let mut text = String::from("<div class=\"bar\">");
    for (tick, _) in axis.ticks() {
        let class = if tick == 1.0 { " class=\"one\"" } else { "" };
        let _ = write!(text, "<i{class} style=\"left:{:.2}%\"></i>", axis.place(tick));
    }
    let (here, one) = (axis.place(ratio), axis.place(1.0));
    let class = if ratio < 1.0 { "less" } else { "more" };
    let (left, width) = (here.min(one), (here - one).abs());
    let _ = write!(text, "<b class=\"{class}\" style=\"left:{left:.2}%;width:{width:.2}%\"></b>");
    if let Some(goal) = line.goal.filter(|goal| goal.log2() >= axis.lowest) {
        let _ = write!(text, "<u style=\"left:{:.2}%\" title=\"goal: {goal:.2}\"></u>", axis.place(goal));
    }
    text + "</div>"
}

/// The rows without a ratio.
fn others(report: &Report) -> String {
    let mut text = String::new();
    let mut list = |title: &str, what: &str, items: Vec<String>| {
        if !items.is_empty() {
            let items: String = items.iter().map(|item| format!("<li>{item}</li>\n")).collect();
            let _ =
                write!(text, "<h2>{title}</h2>\n<p class=\"soft\">{what}</p>\n<ul class=\"names\">\n{items}</ul>\n");
        }
    };
    let absent = report.lines.iter().filter(|line| line.pollux == Summary::Absent);
    let absent = absent.map(|line| {
        let linux = line.linux.as_ref().and_then(Summary::cost).map(|cost| format!(" ({} on Linux)", figure(cost)));
        format!("<code>{}</code>{}", escape(&line.name), linux.unwrap_or_default())
    });
    list("Not there yet", "Pollux does not have the system calls of these operations.", absent.collect());
    let failed = report.lines.iter().flat_map(|line| {
        let summaries = std::iter::once(("Pollux", &line.pollux)).chain(line.linux.as_ref().map(|it| ("Linux", it)));
        summaries.filter_map(|(kernel, summary)| match summary {
            Summary::Error(why) => Some(format!("<code>{}</code> on {kernel}: {}", escape(&line.name), escape(why))),
            _ => None,
        })
    });
    list("Went wrong", "These operations did not do what they should.", failed.collect());
    text
}

fn method(report: &Report) -> String {
    let how = match report.unit {
        Unit::Instructions => {
            "QEMU counts: one processor, one instruction is one nanosecond of virtual time, idle time is free. The \
             figures are numbers of instructions, those of the program included, and repeat within 1 %. They leave \
             out what caches, branch prediction and TLBs do on a real machine."
                .to_string()
        }
        Unit::Nanoseconds { processors } => format!(
            "By the clock, on {processors} emulated processors, the two kernels in turns. The figures are medians; the \
             spread is that between the lowest and the highest, whichever kernel’s is larger."
        ),
    };
    let command = match report.unit {
        Unit::Instructions => "cargo xtask bench --against linux --html FILE",
        Unit::Nanoseconds { .. } => "cargo xtask bench --wall --against linux --html FILE",
    };
    format!(
        "<h2>How it was measured</h2>\n<p>{how}</p>\n<p>Each kernel was booted and measured {} times. Each operation \
         runs a fixed number of times in a process of its own, after some to warm up. To repeat it:</p>\n\
         <p><code>{command}</code></p>\n",
        report.runs
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::report;
    use super::*;

    #[test]
    fn the_page_needs_nothing_else() {
        let page = page(&report());
        for word in ["http:", "https:", "src=", "@import", "url(", "<script", "<link"] {
            assert!(!page.contains(word), "{word}");
        }
    }

    #[test]
    fn bars_begin_at_linux_and_are_sorted() {
        let page = page(&report());
        let (quick, slow) = (page.find(">quick<").unwrap(), page.find(">slow<").unwrap());
        assert!(quick < slow);
        // From 1/4 to 4: the line is in the middle, both bars are half of it.
        assert!(page.contains("class=\"less\" style=\"left:0.00%;width:50.00%\""));
        assert!(page.contains("class=\"more\" style=\"left:50.00%;width:50.00%\""));
        assert!(page.contains("<code>missing</code> (7 on Linux)"));
    }

    #[test]
    fn all_elements_are_closed() {
        let page = page(&report());
        for name in
            ["html", "body", "main", "table", "thead", "tbody", "tr", "td", "div", "dl", "ul", "li", "p", "b", "u"]
        {
            let opened = page.matches(&format!("<{name}>")).count() + page.matches(&format!("<{name} ")).count();
            assert_eq!(opened, page.matches(&format!("</{name}>")).count(), "{name}");
        }
    }
}
