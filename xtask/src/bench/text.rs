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
        let spread = if timed { format!("{:.0} %", line.spread() * 100.0) } else { String::new() };
        let row = format!("{:32}{:>14}{linux:>14}{ratio:>8}  {goal:14}{spread}", line.name, shown(&line.pollux));
        let _ = writeln!(text, "{}", row.trim_end());
    }
    text.push('\n');
    for mean in means(report) {
        let _ = writeln!(text, "{mean}");
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

/// Puts the table into a document, in the place of the one that is there.
pub fn into_document(old: &str, report: &Report) -> Result<String> {
    let mut table = format!("{}; {}.\n\n", report.versions, unit(report));
    for mean in means(report) {
        let _ = writeln!(table, "* {mean}");
    }
    table += "\n| row | Pollux | Linux | ratio | goal |\n|---|---:|---:|---:|---|\n";
    for line in &report.lines {
        let linux = line.linux.as_ref().map(shown).unwrap_or_default();
        let ratio = line.ratio().map(quotient).unwrap_or_default();
        let _ = writeln!(table, "| {} | {} | {linux} | {ratio} | {} |", line.name, shown(&line.pollux), judged(line));
    }
    document::put(old, &table)
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
