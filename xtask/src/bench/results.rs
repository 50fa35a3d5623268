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

    /// What each run found.
    fn figures(&self, name: &str) -> impl Iterator<Item = Option<&Figure>> {
        self.0.iter().map(move |rows| rows.iter().find(|(other, _)| other == name).map(|(_, figure)| figure))
    }

    fn summary(&self, name: &str) -> Summary {
        let mut costs = Vec::new();
        for figure in self.figures(name) {
            match figure {
                Some(Figure::Cost(cost)) => costs.push(*cost),
                Some(Figure::Absent) => return Summary::Absent,
                Some(Figure::Error(why)) => return Summary::Error(why.clone()),
                None => return Summary::Error("not in each run".into()),
            }
        }
        Summary::of(costs)
    }

    /// What one row costs as a part of what another one costs, run by run: what else the host does changes both.
    fn quotients(&self, name: &str, others: &Runs, other: &str) -> Option<Summary> {
        let pairs = self.figures(name).zip(others.figures(other));
        let quotients = pairs.map(|pair| match pair {
            (Some(Figure::Cost(cost)), Some(Figure::Cost(other))) => Some(cost / other),
            _ => None,
        });
        quotients.collect::<Option<Vec<_>>>().filter(|all| !all.is_empty()).map(Summary::of)
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

    fn times(self, factor: f64) -> Summary {
        match self {
            Summary::Cost { median, spread } => Summary::Cost { median: median * factor, spread },
            other => other,
        }
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
    /// The ratios of the runs, where these follow each other in pairs and are at the mercy of the host.
    pub ratios: Option<Summary>,
}

impl Line {
    /// Pollux' cost as a part of Linux'.
    pub fn ratio(&self) -> Option<f64> {
        if let Some(ratios) = &self.ratios {
            return ratios.cost();
        }
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
    /// How many times as much two CPUs get done as one, on each kernel.
    pub scaling: Vec<(KernelKind, Summary)>,
    /// Of what was measured, and with what.
    pub versions: String,
}

/// One pair of processes on a CPU of its own, and two: see [`Report::scaling`].
const ONE_PAIR: &str = "pipe_pingpong_one_cpu";
const TWO_PAIRS: &str = "pipe_pingpong_two_pairs";

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
        let linux = of(KernelKind::Linux);
        let paired = linux.filter(|_| unit != Unit::Instructions);
        let lines = pollux.names().map(|name| Line {
            name: name.clone(),
            pollux: pollux.summary(name),
            linux: linux.map(|linux| linux.summary(name)),
            goal: goal(name),
            ratios: paired.and_then(|linux| pollux.quotients(name, linux, name)),
        });
        let scaling = measured.iter().filter_map(|(kind, runs)| {
            let scaling = runs.quotients(ONE_PAIR, runs, TWO_PAIRS)?;
            Some((*kind, scaling.times(2.0)))
        });
        Ok(Report { lines: lines.collect(), unit, runs, scaling: scaling.collect(), versions })
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
    fn times_are_compared_run_by_run() {
        // The host was half as quick in the second run.
        let rows = |one: f64, two: f64| -> Rows {
            vec![(ONE_PAIR.into(), Figure::Cost(one)), (TWO_PAIRS.into(), Figure::Cost(two))]
        };
        let (mut pollux, mut linux) = (Runs::default(), Runs::default());
        for slower in [1.0, 2.0, 1.0] {
            pollux.add(rows(10.0 * slower, 10.5 * slower));
            linux.add(rows(40.0 * slower, 80.0 * slower));
        }
        let measured = vec![(KernelKind::Pollux, pollux), (KernelKind::Linux, linux)];
        let report = Report::new(measured, Unit::Nanoseconds { processors: 2 }, 3, "", String::new()).unwrap();
        assert_eq!(report.lines[0].ratios, Some(Summary::Cost { median: 0.25, spread: 0.0 }));
        assert_eq!(report.lines[0].ratio(), Some(0.25));
        let factors: Vec<_> = report.scaling.iter().map(|(_, factor)| factor.cost().unwrap()).collect();
        assert!((factors[0] - 20.0 / 10.5).abs() < 1e-9 && factors[1] == 1.0, "{factors:?}");
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
