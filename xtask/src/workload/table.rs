//! What was seen, for a terminal and for a document.

use std::fmt::Write;

use super::list::Workload;
use super::rate::Rate;
use super::verdict::{self, Found, Row};
use crate::bench::text::figure;

/// What is compared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    Time,
    /// Each takes one nanosecond in which the processor is not idle.
    Instructions,
}

impl Measure {
    fn title(self) -> &'static str {
        match self {
            Measure::Time => "time",
            Measure::Instructions => "instr.",
        }
    }

    fn of(self, found: &Found) -> f64 {
        match self {
            Measure::Time => found.seconds,
            Measure::Instructions => found.busy,
        }
    }

    /// Seconds, or 10^9 instructions.
    fn shown(self, found: &Found) -> String {
        match self {
            Measure::Time => format!("{:.1} s", found.seconds),
            Measure::Instructions => format!("{:.2} G", found.busy),
        }
    }
}

/// What there is to run.
pub fn list(workloads: &[Workload]) -> String {
    let mut text = String::new();
    for workload in workloads {
        let _ = writeln!(text, "{:16}{} (image {})", workload.name, workload.about, workload.image);
        if let ([first, .., last], true) = (&workload.entries[..], workload.long) {
            let (first, last) = (workload.full_name(first), workload.full_name(last));
            let _ = writeln!(text, "    {first} to {last}: only when they are named");
            continue;
        }
        for entry in &workload.entries {
            let _ = writeln!(text, "    {:36}{:4} s", workload.full_name(entry), entry.seconds);
        }
    }
    text
}

/// In a word.
fn word(found: &Found) -> &'static str {
    if found.problems.is_empty() { "ok" } else { "failed" }
}

/// Pollux' figure as a part of Linux's, where that is large enough to say something.
fn ratio(measure: Measure, row: &Row) -> Option<String> {
    let (pollux, linux) = (measure.of(&row.pollux), measure.of(row.linux.as_ref()?));
    (linux >= 0.1 && pollux > 0.0).then(|| format!("{:.2}", pollux / linux))
}

/// Lines on what went wrong, each after the name of what it was.
fn remarks(rows: &[Row]) -> impl Iterator<Item = (&str, String)> {
    rows.iter().flat_map(|row| {
        let remark = |kernel: &str, found: &Found| {
            (!found.problems.is_empty()).then(|| format!("on {kernel}: {}", verdict::shown(&found.problems)))
        };
        let both = [remark("Pollux", &row.pollux), row.linux.as_ref().and_then(|found| remark("Linux", found))];
        both.into_iter().flatten().map(|remark| (row.name.as_str(), remark))
    })
}

/// The table for a terminal.
pub fn text(head: &str, measure: Measure, rows: &[Row], colours: bool) -> String {
    let mut text = format!("{head}\n\n");
    let compared = rows.iter().any(|row| row.linux.is_some());
    let title = measure.title();
    let names = if compared { ["Linux", title, "ratio"] } else { [""; 3] };
    let line = format!("{:32}{:10}{:>9}  {:10}{:>9}{:>8}", "", "Pollux", title, names[0], names[1], names[2]);
    let _ = writeln!(text, "{}", line.trim_end());
    for row in rows {
        let pollux = format!("{:32}{:10}{:>9}", row.name, word(&row.pollux), measure.shown(&row.pollux));
        let linux = row.linux.as_ref().map(|linux| format!("  {:10}{:>9}", word(linux), measure.shown(linux)));
        let line = format!("{pollux}{}{:>8}", linux.unwrap_or_default(), ratio(measure, row).unwrap_or_default());
        let line = line.trim_end();
        let _ =
            if colours && row.failed() { writeln!(text, "\x1b[31m{line}\x1b[0m") } else { writeln!(text, "{line}") };
    }
    text.push('\n');
    for line in rates(rows) {
        let [name, pollux, linux, ratio, goal] = line.words();
        let line = format!("{name:32}{pollux:>18}  {linux:>18}{ratio:>8}  {goal}");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    if !rates(rows).is_empty() {
        text.push('\n');
    }
    for (name, remark) in remarks(rows) {
        let _ = writeln!(text, "{name} {remark}");
    }
    text
}

/// The table for a document.
pub fn markdown(head: &str, measure: Measure, rows: &[Row]) -> String {
    let title = measure.title();
    let mut text =
        format!("{head}.\n\n| entry | Pollux | {title} | Linux | {title} | ratio |\n|---|---|---:|---|---:|---:|\n");
    for row in rows {
        let linux = row.linux.as_ref();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            row.name,
            word(&row.pollux),
            measure.shown(&row.pollux),
            linux.map(word).unwrap_or_default(),
            linux.map(|linux| measure.shown(linux)).unwrap_or_default(),
            ratio(measure, row).unwrap_or_default()
        );
    }
    for (index, (name, remark)) in remarks(rows).enumerate() {
        let _ = writeln!(text, "{}* {name} {remark}", if index == 0 { "\n" } else { "" });
    }
    text
}

/// What was done in a second.
struct RateLine<'a> {
    name: String,
    pollux: &'a Rate,
    linux: Option<&'a Rate>,
    ratio: Option<f64>,
    goal: Option<f64>,
}

impl RateLine<'_> {
    fn words(&self) -> [String; 5] {
        let shown = |rate: &Rate| format!("{} {}", figure(rate.value), rate.unit);
        let reached = self.goal.is_some_and(|goal| self.ratio.is_some_and(|ratio| ratio >= goal));
        [
            self.name.clone(),
            shown(self.pollux),
            self.linux.map(shown).unwrap_or_default(),
            self.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
            self.goal.map(|goal| format!("{goal:.2}{}", if reached { " reached" } else { "" })).unwrap_or_default(),
        ]
    }
}

fn rates(rows: &[Row]) -> Vec<RateLine<'_>> {
    let line = |row, pollux| {
        let row: &Row = row;
        let pollux: &Rate = pollux;
        RateLine {
            name: format!("{} {}", row.name, pollux.name),
            pollux,
            linux: row.linux.as_ref().and_then(|linux| linux.rate(&pollux.name)),
            ratio: row.rate_ratio(&pollux.name),
            goal: row.goals.get(&pollux.name).copied(),
        }
    };
    rows.iter().flat_map(|row| row.pollux.rates.iter().map(move |rate| line(row, rate))).collect()
}

/// The table of them for a document.
pub fn rates_markdown(head: &str, rows: &[Row]) -> String {
    let mut text = format!("{head}.\n\n| what | Pollux | Linux | ratio | goal |\n|---|---:|---:|---:|---|\n");
    for line in rates(rows) {
        let _ = writeln!(text, "| {} |", line.words().join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::verdict::tests::{rates, table};
    use super::*;

    #[test]
    fn rates_have_lines_of_their_own() {
        let terminal = text("head", Measure::Time, &rates(), false);
        let line = format!(
            "{:32}{:>18}  {:>18}{:>8}  1.50 reached",
            "w.one a", "15,000 requests/s", "10,000 requests/s", "1.50"
        );
        assert!(terminal.lines().any(|other| other == line), "{terminal}");
        let document = rates_markdown("head", &rates());
        assert!(document.contains("| w.one a | 15,000 requests/s | 10,000 requests/s | 1.50 | 1.50 reached |\n"));
        assert!(document.contains("| w.one b | 9.5 Mbit/s | 19.5 Mbit/s | 0.49 | 1.00 |\n"));
        assert!(!text("head", Measure::Time, &table(), false).contains("requests/s"));
    }

    #[test]
    fn both_tables_have_a_row_for_each_entry_and_remarks() {
        let terminal = text("head", Measure::Time, &table(), false);
        let good = format!("{:32}{:10}{:>9}  {:10}{:>9}{:>8}", "w.good", "ok", "2.0 s", "ok", "4.0 s", "0.50");
        assert!(terminal.lines().any(|line| line == good), "{terminal}");
        assert!(terminal.contains("w.both on Linux: its status is 2\n"));
        let document = markdown("head", Measure::Instructions, &table());
        assert!(document.contains("| entry | Pollux | instr. | Linux | instr. | ratio |\n"));
        assert!(document.contains("| w.good | ok | 1.50 G | ok | 3.00 G | 0.50 |\n"));
        let document = markdown("head", Measure::Time, &table());
        assert!(document.contains("| w.good | ok | 2.0 s | ok | 4.0 s | 0.50 |\n"));
        assert!(document.contains("\n\n* w.both on Pollux: its status is 1\n"));
    }
}
