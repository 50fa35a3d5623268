//! What is wrong with what was seen, and what of that counts.

use std::collections::BTreeMap;

use super::guest::{End, Seen};
use super::list::{Entry, Workload};
use super::rate::{self, Rate};

/// Free memory must return to within so many hundredths of what it was.
const LOST_PERCENT: u64 = 2;

/// What Linux says only because the host was busy.
const BUSY_HOST: &str = "hrtimer: interrupt took";

/// In what way an entry went wrong: Linux excuses Pollux only for the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    End,
    Output,
    Memory,
    Log,
    /// It executes too much, or does too little in its time. That is no excuse for another kernel.
    Cost,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    pub kind: Kind,
    pub text: String,
}

/// All that is wrong with it.
pub fn problems(entry: &Entry, seen: &Seen) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut say = |kind, text| problems.push(Problem { kind, text });
    match &seen.end {
        End::Status(0) => {}
        End::Status(status @ 129..=192) => {
            say(Kind::End, format!("its status is {status}, as if signal {} had ended it", status - 128))
        }
        End::Status(status) => say(Kind::End, format!("its status is {status}")),
        End::Late => say(Kind::End, format!("no end within {} s", entry.limit())),
        End::Machine(why) => say(Kind::End, why.clone()),
    }
    for part in &entry.require {
        // Nobody expects this of one that has come to an end before.
        if seen.end == End::Status(0) && !seen.output.contains(part.as_str()) {
            say(Kind::Output, format!("it does not say {part:?}"));
        }
    }
    let bad = |line: &&str| entry.forbid.iter().any(|part| line.contains(part.as_str()));
    if let Some(line) = seen.output.lines().find(bad) {
        say(Kind::Output, format!("it says {:?}", line.trim()));
    }
    let rates = if seen.counted || seen.end != End::Status(0) { None } else { Some(rate::read(&seen.output)) };
    for name in
        rates.iter().flat_map(|rates| entry.goals.keys().filter(|name| rates.iter().all(|rate| rate.name != **name)))
    {
        say(Kind::Output, format!("it does not tell the rate of {name}"));
    }
    if let Some((before, after)) = seen.memory.filter(|(before, after)| *after < before - before * LOST_PERCENT / 100) {
        say(Kind::Memory, format!("{} of {before} KiB of memory did not come back", before - after));
    }
    if let Some(most) = entry.instructions.filter(|most| seen.counted && seen.busy() > *most) {
        say(Kind::Cost, format!("it takes {:.2} G instructions, more than {most:.2} G", seen.busy()));
    }
    // A kernel that is asked who waits for what says more than that something is wrong.
    let quiet = || entry.quiet.iter().map(String::as_str).chain([BUSY_HOST]);
    let counts = |line: &&String| !quiet().any(|part| line.contains(part));
    if let Some(line) = seen.log.iter().find(counts).filter(|_| seen.end != End::Late) {
        say(Kind::Log, format!("the kernel says {:?}", line.trim()));
    }
    problems
}

/// In one line.
pub fn shown(problems: &[Problem]) -> String {
    problems.iter().map(|problem| problem.text.as_str()).collect::<Vec<_>>().join("; ")
}

/// What an entry came to on one kernel.
pub struct Found {
    pub seconds: f64,
    /// Seconds in which a processor was at work.
    pub busy: f64,
    pub rates: Vec<Rate>,
    pub problems: Vec<Problem>,
}

impl Found {
    fn of(entry: &Entry, seen: &Seen) -> Found {
        // Where the clock counts instructions they say nothing.
        let rates = if seen.counted { Vec::new() } else { rate::read(&seen.output) };
        Found { seconds: seen.seconds, busy: seen.busy(), rates, problems: problems(entry, seen) }
    }

    pub fn rate(&self, name: &str) -> Option<&Rate> {
        self.rates.iter().find(|rate| rate.name == name)
    }
}

/// What an entry came to.
pub struct Row {
    /// `WORKLOAD.ENTRY`.
    pub name: String,
    pub pollux: Found,
    pub linux: Option<Found>,
    /// Of rates.
    pub goals: BTreeMap<String, f64>,
}

impl Row {
    /// What is wrong on Pollux and not on Linux.
    pub fn own(&self) -> impl Iterator<Item = &Problem> {
        let linux = || self.linux.iter().flat_map(|linux| &linux.problems);
        self.pollux
            .problems
            .iter()
            .filter(move |problem| linux().all(|other| other.kind != problem.kind || other.kind == Kind::Cost))
    }

    /// Rates that do not reach their goals beside Linux's.
    fn slow(&self) -> Vec<Problem> {
        let slow = |(name, goal): (&String, &f64)| {
            let ratio = self.rate_ratio(name).filter(|ratio| ratio < goal)?;
            Some(Problem { kind: Kind::Cost, text: format!("{name} is {ratio:.2} of Linux's, less than {goal:.2}") })
        };
        self.goals.iter().filter_map(slow).collect()
    }

    /// A rate as a part of Linux's.
    pub fn rate_ratio(&self, name: &str) -> Option<f64> {
        Some(self.pollux.rate(name)?.value / self.linux.as_ref()?.rate(name)?.value)
    }

    pub fn failed(&self) -> bool {
        self.own().next().is_some()
    }
}

/// From what was seen, first on Pollux and then, if it ran there, on Linux.
pub fn rows(workload: &Workload, seen: Vec<Vec<Seen>>) -> Vec<Row> {
    let found = |kernel: usize, index: usize| {
        let seen: &Seen = seen.get(kernel)?.get(index)?;
        Some(Found::of(&workload.entries[index], seen))
    };
    let row = |(index, entry): (usize, &Entry)| {
        let (name, goals) = (workload.full_name(entry), entry.goals.clone());
        let mut row = Row { name, pollux: found(0, index)?, linux: found(1, index), goals };
        let slow = row.slow();
        row.pollux.problems.extend(slow);
        Some(row)
    };
    workload.entries.iter().enumerate().filter_map(row).collect()
}

/// The whole in one sentence.
pub fn summary(rows: &[Row]) -> String {
    let failed: Vec<&str> = rows.iter().filter(|row| row.failed()).map(|row| row.name.as_str()).collect();
    let compared = rows.iter().any(|row| row.linux.is_some());
    let total = rows.len();
    match (failed.len(), compared) {
        (0, false) => format!("all of {total} went well on Pollux"),
        (0, true) => format!("none of {total} fails on Pollux in a way in which it does not fail on Linux"),
        (count, false) => format!("{count} of {total} fail on Pollux: {}", failed.join(", ")),
        (count, true) => format!("{count} of {total} fail on Pollux and not on Linux: {}", failed.join(", ")),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    fn seen(status: i32, output: &str) -> Seen {
        let memory = Some((1000, 985));
        Seen { end: End::Status(status), seconds: 2.0, idle: 0.5, memory, output: output.into(), ..Seen::default() }
    }

    fn entry() -> Entry {
        let words = |word: &str| vec![word.to_string()];
        Entry {
            name: "one".into(),
            seconds: 5,
            slack: 5,
            require: words("done"),
            forbid: words("fail:"),
            quiet: words("not implemented"),
            ..Entry::default()
        }
    }

    fn kinds(seen: &Seen) -> Vec<Kind> {
        problems(&entry(), seen).iter().map(|problem| problem.kind).collect()
    }

    #[test]
    fn each_kind_of_problem() {
        assert_eq!(kinds(&seen(0, "all done")), []);
        assert_eq!(kinds(&seen(1, "all done")), [Kind::End]);
        assert_eq!(kinds(&seen(0, "all")), [Kind::Output]);
        assert_eq!(kinds(&seen(0, "done\nfail: x")), [Kind::Output]);
        assert_eq!(kinds(&Seen { memory: Some((1000, 979)), ..seen(0, "done") }), [Kind::Memory]);
        assert_eq!(kinds(&Seen { memory: Some((1000, 2000)), ..seen(0, "done") }), []);
        let log = |line: &str| Seen { log: vec![line.into()], ..seen(0, "done") };
        assert_eq!(kinds(&log("call 5 is not implemented")), []);
        assert_eq!(kinds(&log("WARNING")), [Kind::Log]);
        let dear = Entry { instructions: Some(1.49), ..entry() };
        assert_eq!(problems(&dear, &seen(0, "done")), []);
        let counted = problems(&dear, &Seen { counted: true, ..seen(0, "done") });
        assert_eq!(shown(&counted), "it takes 1.50 G instructions, more than 1.49 G");
        assert_eq!(kinds(&Seen { counted: true, ..seen(0, "done") }), []);
        let late = Seen { end: End::Late, ..log("Show Blocked State") };
        assert_eq!(shown(&problems(&entry(), &late)), "no end within 10 s");
        let signalled = Seen { end: End::Status(139), ..seen(0, "") };
        assert_eq!(shown(&problems(&entry(), &signalled)), "its status is 139, as if signal 11 had ended it");
    }

    fn workload(entries: Vec<Entry>) -> Workload {
        Workload {
            name: "w".into(),
            about: String::new(),
            image: String::new(),
            mem: String::new(),
            long: false,
            server: None,
            host: Vec::new(),
            forward: Vec::new(),
            faults: None,
            env: Vec::new(),
            entries,
        }
    }

    /// Two rates, of which the second is below its goal.
    pub fn rates() -> Vec<Row> {
        let goals = [("a", 1.5), ("b", 1.0), ("c", 2.0)].map(|(name, goal)| (name.to_string(), goal));
        let one = Entry { goals: goals.into(), ..entry() };
        let said = |a: u32, b: u32| seen(0, &format!("done\nrate: a {a} requests/s\nrate: b {b}.5 Mbit/s"));
        rows(&workload(vec![one]), vec![vec![said(15000, 9)], vec![said(10000, 19)]])
    }

    #[test]
    fn rates_are_told_and_reach_their_goals() {
        let rows = rates();
        let own: Vec<_> = rows[0].own().cloned().collect();
        assert_eq!(shown(&own), "b is 0.49 of Linux's, less than 1.00");
        assert_eq!(shown(&rows[0].pollux.problems), format!("it does not tell the rate of c; {}", shown(&own)));
        let one = Entry { goals: rows[0].goals.clone(), ..entry() };
        assert_eq!(problems(&one, &Seen { counted: true, ..seen(0, "done") }), []);
        assert_eq!(problems(&one, &seen(1, "")).len(), 1);
    }

    /// One entry that went well, one that fails on both, one that fails on Pollux only.
    pub fn table() -> Vec<Row> {
        let entries = ["good", "both", "own"].map(|name| Entry { name: name.into(), ..entry() });
        let pollux = vec![seen(0, "done"), seen(1, ""), Seen { memory: Some((9, 1)), ..seen(1, "") }];
        let linux = vec![Seen { seconds: 4.0, idle: 1.0, ..seen(0, "done") }, seen(2, ""), seen(3, "")];
        rows(&workload(entries.into()), vec![pollux, linux])
    }

    #[test]
    fn linux_excuses_only_the_same() {
        let rows = table();
        let failed: Vec<bool> = rows.iter().map(Row::failed).collect();
        assert_eq!(failed, [false, false, true]);
        assert_eq!(rows[2].own().map(|problem| problem.kind).collect::<Vec<_>>(), [Kind::Memory]);
        assert_eq!(summary(&rows), "1 of 3 fail on Pollux and not on Linux: w.own");
        assert!(summary(&rows[..2]).starts_with("none of 2 fails"));
    }
}
