//! The table, for a terminal and for a document.

use std::fmt::Write;

use anyhow::Result;

use super::results::{Line, Report, Summary, Unit};
use crate::document;

/// 1234567.8 as `1,234,568`; small figures keep a digit.
pub fn figure(value: f64) -> String {
    if value < 100.0 && value.fract() != 0.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Two digits that say something.
pub fn quotient(ratio: f64) -> String {
    if ratio < 0.095 { format!("{ratio:.3}") } else { format!("{ratio:.2}") }
}

/// A summary in a word or two.
pub fn shown(summary: &Summary) -> String {
    match summary {
        Summary::Cost { median, .. } => figure(*median),
        Summary::Absent => "absent".into(),
        Summary::Error(why) => format!("ERR {why}"),
    }
}

/// Whether a row with a goal has reached it.
fn judged(line: &Line) -> String {
    match (line.goal, line.ratio()) {
        (Some(goal), Some(ratio)) if ratio <= goal => format!("{goal:.2} reached"),
        (Some(goal), _) => format!("{goal:.2}"),
        (None, _) => String::new(),
    }
}

fn unit(report: &Report) -> String {
    match report.unit {
        Unit::Instructions => "instructions per operation, one CPU".into(),
        Unit::Nanoseconds { processors } => format!("nanoseconds per operation, {processors} CPUs"),
    }
}

/// The table for a terminal, with the means below.
pub fn table(report: &Report) -> String {
    let mut text = format!("{}; {}; runs: {}\n\n", report.versions, unit(report), report.runs);
    let compared = report.lines.iter().any(|line| line.linux.is_some());
    let timed = report.unit != Unit::Instructions;
    let head = if compared { ["Linux", "ratio", "goal"] } else { [""; 3] };
    let spread = if timed { "spread" } else { "" };
    let head = format!("{:32}{:>14}{:>14}{:>8}  {:14}{spread}", "", "Pollux", head[0], head[1], head[2]);
    let _ = writeln!(text, "{}", head.trim_end());
    for line in &report.lines {
        let linux = line.linux.as_ref().map(shown).unwrap_or_default();
        let ratio = line.ratio().map(quotient).unwrap_or_default();
        let goal = if compared { judged(line) } else { String::new() };
        let spread = if timed { spreads(line) } else { String::new() };
        let row = format!("{:32}{:>14}{linux:>14}{ratio:>8}  {goal:14}{spread}", line.name, shown(&line.pollux));
        let _ = writeln!(text, "{}", row.trim_end());
    }
    text.push('\n');
    for mean in means(report) {
        let _ = writeln!(text, "{mean}");
    }
    for sentence in scaling(report) {
        let _ = writeln!(text, "{sentence}");
    }
    for line in report.restless() {
        let spread = line.spread() * 100.0;
        let _ = writeln!(text, "{}: the runs differ by {spread:.1} %, more than they should", line.name);
    }
    text
}

/// The geometric means, in sentences.
pub fn means(report: &Report) -> Vec<String> {
    let mut means = Vec::new();
    if let Some((mean, count)) = report.mean(|_| true) {
        means.push(format!("geometric mean of the ratios of all {count} rows: {mean:.3}"));
    }
    if let Some((mean, count)) = report.mean(|line| line.goal.is_some()) {
        let met = report.lines.iter().filter(|line| line.ratio() <= line.goal && line.ratio().is_some());
        let met = met.filter(|line| line.goal.is_some()).count();
        means.push(format!("of the {count} rows with a goal: {mean:.3}; {met} have reached theirs"));
    }
    means
}

/// How far the runs are apart: the costs, and the ratios.
fn spreads(line: &Line) -> String {
    let percent = |spread: f64| format!("{:.0} %", spread * 100.0);
    let ratios = line.ratios.as_ref().map(|ratios| format!(", ratio {}", percent(ratios.spread())));
    percent(line.spread()) + &ratios.unwrap_or_default()
}

/// What two CPUs get done, in a sentence for each kernel.
fn scaling(report: &Report) -> impl Iterator<Item = String> {
    report.scaling.iter().filter_map(|(kind, factor)| {
        let (times, spread) = (factor.cost()?, factor.spread() * 100.0);
        let name = super::name_of(*kind);
        Some(format!(
            "{name}: two CPUs get {times:.2} times as much done as one (two pairs, pipes; spread {spread:.0} %)"
        ))
    })
}

/// What the place of a report in a document is called.
fn place(unit: Unit) -> String {
    match unit {
        Unit::Instructions => document::FIGURES.to_string(),
        Unit::Nanoseconds { processors } => format!("figures by time, {processors} CPUs"),
    }
}

/// Puts the table into a document, in the place of the one that is there.
pub fn into_document(old: &str, report: &Report) -> Result<String> {
    let timed = report.unit != Unit::Instructions;
    let runs = if timed { format!("; medians of {} runs", report.runs) } else { String::new() };
    let mut table = format!("{}; {}{runs}.\n\n", report.versions, unit(report));
    for sentence in means(report).into_iter().chain(scaling(report)) {
        let _ = writeln!(table, "* {sentence}");
    }
    let (head, rule) = if timed { (" spread |", "---|") } else { ("", "") };
    let _ = writeln!(table, "\n| row | Pollux | Linux | ratio | goal |{head}\n|---|---:|---:|---:|---|{rule}");
    for line in &report.lines {
        let linux = line.linux.as_ref().map(shown).unwrap_or_default();
        let ratio = line.ratio().map(quotient).unwrap_or_default();
        let spread = if timed { format!(" {} |", spreads(line)) } else { String::new() };
        let (name, pollux) = (&line.name, shown(&line.pollux));
        let _ = writeln!(table, "| {name} | {pollux} | {linux} | {ratio} | {} |{spread}", judged(line));
    }
    document::put(old, &place(report.unit), &table)
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::report;
    use super::*;

    #[test]
    fn figures_are_easy_to_read() {
        assert_eq!(figure(1_234_567.8), "1,234,568");
        assert_eq!(figure(999.4), "999");
        assert_eq!(figure(62.5), "62.5");
        assert_eq!(figure(1000.0), "1,000");
    }

    #[test]
    fn a_document_gets_the_table() {
        let old = "<!-- figures -->\n<!-- end of figures -->\n";
        let new = into_document(old, &report()).unwrap();
        assert!(new.contains("| quick | 100 | 400 | 0.25 | 0.30 reached |\n"));
        assert!(new.contains("| missing | absent | 7 |  |  |\n"));
    }

    #[test]
    fn the_terminal_shows_means_and_restless_rows() {
        let text = table(&report());
        assert!(text.contains("all 2 rows: 1.000"));
        assert!(text.contains("slow: the runs differ by 4.9 %"));
    }
}
