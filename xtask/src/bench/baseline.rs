//! Figures in the tree, and whether the new ones are worse.

use std::fmt;

use anyhow::{Context, Result, ensure};

use super::results::{Report, Summary};
use super::text::{figure, shown};

/// How much worse a row may become.
pub const TOLERANCE: f64 = 0.05;

/// The rows whose calls the kernel has, one a line.
pub fn encode(report: &Report) -> Result<String> {
    ensure!(report.failed().next().is_none(), "rows with errors are no baseline");
    let rows = report.lines.iter().filter_map(|line| Some(format!("{}\t{:.1}\n", line.name, line.pollux.cost()?)));
    let head = "# Instructions per operation: cargo xtask bench --record-baseline tests/bench/baseline.tsv\n";
    Ok(std::iter::once(head.to_string()).chain(rows).collect())
}

/// The rows of a text that [`encode`] has made.
pub fn names(recorded: &str) -> impl Iterator<Item = &str> {
    recorded.lines().filter(|line| !line.starts_with('#')).filter_map(|line| Some(line.split_once('\t')?.0))
}

/// What a comparison has found.
#[derive(Default, Debug, PartialEq)]
pub struct Verdict {
    rows: usize,
    worse: Vec<String>,
    better: Vec<String>,
    new: Vec<String>,
}

/// Compares with a text that [`encode`] has made. When all rows were measured, none may be missing.
pub fn compare(recorded: &str, report: &Report, all: bool) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let mut known = Vec::new();
    for line in recorded.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.split_once('\t').with_context(|| format!("{line:?} is not a row of a baseline"))?;
        let before: f64 = value.parse().with_context(|| format!("{line:?} has no figure"))?;
        known.push(name);
        let Some(line) = report.lines.iter().find(|line| line.name == name) else {
            if all {
                verdict.worse.push(format!("{name}: is gone"));
            }
            continue;
        };
        verdict.rows += 1;
        match &line.pollux {
            Summary::Cost { median, .. } => {
                let change = median / before - 1.0;
                let text =
                    format!("{name}: {} before, {} now ({:+.1} %)", figure(before), figure(*median), change * 100.0);
                if change > TOLERANCE {
                    verdict.worse.push(text);
                } else if change < -TOLERANCE {
                    verdict.better.push(text);
                }
            }
            other => verdict.worse.push(format!("{name}: {} before, {} now", figure(before), shown(other))),
        }
    }
    let new = report.lines.iter().filter(|line| line.pollux.cost().is_some() && !known.contains(&line.name.as_str()));
    verdict.new = new.map(|line| line.name.clone()).collect();
    Ok(verdict)
}

impl Verdict {
    pub fn failed(&self) -> bool {
        !self.worse.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = [("worse", &self.worse), ("better", &self.better), ("not in the baseline", &self.new)];
        for (what, list) in lists {
            list.iter().try_for_each(|text| writeln!(f, "{what}: {text}"))?;
        }
        writeln!(f, "{} rows compared with the baseline, {} worse by more than 5 %", self.rows, self.worse.len())
    }
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::report;
    use super::*;

    #[test]
    fn what_was_recorded_compares_well() {
        let recorded = encode(&report()).unwrap();
        let verdict = compare(&recorded, &report(), true).unwrap();
        assert!(!verdict.failed());
        assert_eq!(verdict, Verdict { rows: 2, ..Verdict::default() });
    }

    #[test]
    fn a_row_that_is_worse_or_gone_fails() {
        let verdict = compare("quick\t90.0\nslow\t2050.0\nold\t3.0\n", &report(), true).unwrap();
        assert_eq!(verdict.worse, ["quick: 90 before, 100 now (+11.1 %)", "old: is gone"]);
        let verdict = compare("missing\t7.0\n", &report(), true).unwrap();
        assert_eq!(verdict.worse, ["missing: 7 before, absent now"]);
        assert_eq!(verdict.new, ["quick", "slow"]);
    }

    #[test]
    fn a_part_need_not_have_all_rows() {
        assert!(!compare("old\t3.0\n", &report(), false).unwrap().failed());
    }
}
