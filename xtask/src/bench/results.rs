//! From several runs to one figure a row, and from two kernels to ratios.

use anyhow::{Context, Result};

use super::suite::{Figure, Rows};
use crate::machine::KernelKind;

/// Instructions repeat to this, or something is wrong with the row.
pub const REPEATS: f64 = 0.01;

/// What the figures are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Instructions,
    Nanoseconds { processors: usize },
}

/// All runs of one kernel.
#[derive(Default)]
pub struct Runs(Vec<Rows>);

impl Runs {
    pub fn add(&mut self, rows: Rows) {
        self.0.push(rows);
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        self.0.first().into_iter().flatten().map(|(name, _)| name)
    }

    fn summary(&self, name: &str) -> Summary {
        let figures = self.0.iter().map(|rows| rows.iter().find(|(other, _)| other == name).map(|(_, figure)| figure));
        let mut costs = Vec::new();
        for figure in figures {
            match figure {
                Some(Figure::Cost(cost)) => costs.push(*cost),
                Some(Figure::Absent) => return Summary::Absent,
                Some(Figure::Error(why)) => return Summary::Error(why.clone()),
                None => return Summary::Error("not in each run".into()),
            }
        }
        Summary::of(costs)
    }
}

/// What all runs together say about a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Summary {
    Cost {
        median: f64,
        /// From the lowest to the highest, as a part of the median.
        spread: f64,
    },
    Absent,
    Error(String),
}

impl Summary {
    fn of(mut costs: Vec<f64>) -> Summary {
        costs.sort_by(f64::total_cmp);
        let (Some(lowest), Some(highest)) = (costs.first(), costs.last()) else {
            return Summary::Error("no run".into());
        };
        let middle = costs.len() / 2;
        let median = if costs.len() % 2 == 1 { costs[middle] } else { (costs[middle - 1] + costs[middle]) / 2.0 };
        Summary::Cost { median, spread: (highest - lowest) / median }
    }

    pub fn cost(&self) -> Option<f64> {
        match self {
            Summary::Cost { median, .. } => Some(*median),
            _ => None,
        }
    }

    pub fn spread(&self) -> f64 {
        match self {
            Summary::Cost { spread, .. } => *spread,
            _ => 0.0,
        }
    }
}

/// One row of the table.
pub struct Line {
    pub name: String,
    pub pollux: Summary,
    pub linux: Option<Summary>,
    /// What the ratio should be at most.
    pub goal: Option<f64>,
}

impl Line {
    /// Pollux' cost as a part of Linux'.
    pub fn ratio(&self) -> Option<f64> {
        Some(self.pollux.cost()? / self.linux.as_ref()?.cost()?)
    }

    fn summaries(&self) -> impl Iterator<Item = &Summary> {
        std::iter::once(&self.pollux).chain(&self.linux)
    }

    pub fn spread(&self) -> f64 {
        self.summaries().map(Summary::spread).fold(0.0, f64::max)
    }
}

/// Everything that there is to show.
pub struct Report {
    pub lines: Vec<Line>,
    pub unit: Unit,
    pub runs: u8,
    /// Of what was measured, and with what.
    pub versions: String,
}

impl Report {
    /// `goals` is the text of `tests/bench/goals.tsv`.
    pub fn new(
        measured: Vec<(KernelKind, Runs)>,
        unit: Unit,
        runs: u8,
        goals: &str,
        versions: String,
    ) -> Result<Report> {
        let of = |kind| measured.iter().find(|(other, _)| *other == kind).map(|(_, runs)| runs);
        let pollux = of(KernelKind::Pollux).context("Pollux was not measured")?;
        let goal = |name: &str| -> Option<f64> {
            let mut goals = goals.lines().filter_map(|line| line.split_once('\t'));
            goals.find(|(other, _)| *other == name)?.1.parse().ok()
        };
        let lines = pollux.names().map(|name| Line {
            name: name.clone(),
            pollux: pollux.summary(name),
            linux: of(KernelKind::Linux).map(|linux| linux.summary(name)),
            goal: goal(name),
        });
        Ok(Report { lines: lines.collect(), unit, runs, versions })
    }

    /// Rows that did not do what they should, on either kernel, and why.
    pub fn failed(&self) -> impl Iterator<Item = (&str, &str)> {
        self.lines.iter().flat_map(|line| {
            line.summaries().filter_map(|summary| match summary {
                Summary::Error(why) => Some((line.name.as_str(), why.as_str())),
                _ => None,
            })
        })
    }

    /// The geometric mean of the ratios of some rows, and how many they are.
    pub fn mean(&self, wanted: impl Fn(&Line) -> bool) -> Option<(f64, usize)> {
        let ratios = self.lines.iter().filter(|line| wanted(line)).filter_map(Line::ratio);
        let logarithms: Vec<f64> = ratios.map(f64::ln).collect();
        let count = logarithms.len();
        (count > 0).then(|| ((logarithms.iter().sum::<f64>() / count as f64).exp(), count))
    }

    /// Rows that repeat less well than instructions must.
    pub fn restless(&self) -> impl Iterator<Item = &Line> {
        let counted = self.unit == Unit::Instructions;
        self.lines.iter().filter(move |line| counted && line.spread() > REPEATS)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Two runs on both kernels.
    pub fn report() -> Report {
        let rows = |costs: [f64; 2]| -> Rows {
            vec![
                ("quick".into(), Figure::Cost(costs[0])),
                ("slow".into(), Figure::Cost(costs[1])),
                ("missing".into(), Figure::Absent),
            ]
        };
        let mut pollux = Runs::default();
        pollux.add(rows([100.0, 2000.0]));
        pollux.add(rows([100.0, 2100.0]));
        let mut linux = Runs::default();
        linux.add(vec![
            ("quick".into(), Figure::Cost(400.0)),
            ("slow".into(), Figure::Cost(512.5)),
            ("missing".into(), Figure::Cost(7.0)),
        ]);
        let measured = vec![(KernelKind::Pollux, pollux), (KernelKind::Linux, linux)];
        Report::new(measured, Unit::Instructions, 2, "# goals\nquick\t0.30\n", "both".into()).unwrap()
    }

    #[test]
    fn runs_become_medians_and_ratios() {
        let report = report();
        assert_eq!(report.lines[0].ratio(), Some(0.25));
        assert_eq!(report.lines[1].ratio(), Some(4.0));
        assert_eq!(report.lines[2].ratio(), None);
        assert_eq!(report.lines[0].goal, Some(0.3));
        assert_eq!(report.failed().next(), None);
    }

    #[test]
    fn the_mean_is_geometric() {
        let (mean, count) = report().mean(|_| true).unwrap();
        assert!((mean - 1.0).abs() < 1e-9);
        assert_eq!(count, 2);
        assert_eq!(report().mean(|line| line.goal.is_some()), Some((0.25, 1)));
    }

    #[test]
    fn what_does_not_repeat_is_named() {
        let report = report();
        let names: Vec<_> = report.restless().map(|line| line.name.as_str()).collect();
        assert_eq!(names, ["slow"]);
    }
}
