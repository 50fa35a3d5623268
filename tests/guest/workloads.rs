//! Programs of others that load the kernel: see `cargo xtask workload`. Here for two seconds each; and what is reported of
//! those that go wrong.

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use pollux_tests::lab;
use xtask::machine::MachineOptions;
use xtask::workload::guest::{self, Seen};
use xtask::workload::list::{self, Workload};
use xtask::workload::server::Network;
use xtask::workload::verdict::{self, problems};
use xtask::{paths, ui};

use crate::trial;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("workload::a_few_go_well", few),
        trial("workload::what_goes_wrong_is_reported", wrong),
        trial("workload::mixed_clients_on_a_wire_that_loses", soak),
        // Counted instructions: what else the host does has no influence.
        trial("workload::git_executes_no_more_than_it_may", instructions),
    ]
}

/// A few of each kind; all of them are for people with time.
fn few() -> Result<()> {
    let names = ["stress-ng.futex", "stress-ng.sigq", "stress-ng.io-uring", "rt-tests.ptsematest", "perf.epoll-wait"];
    let all = list::all(&paths::root().join("workloads"))?;
    let chosen = list::choose(all, &names.map(String::from))?;
    // All of them are for one image, and run in one boot.
    let entries = chosen.into_iter().flat_map(|workload| workload.entries).collect();
    let few = Workload {
        name: "few".into(),
        about: String::new(),
        image: "stress".into(),
        mem: "512M".into(),
        long: false,
        server: None,
        host: Vec::new(),
        forward: Vec::new(),
        faults: None,
        env: Vec::new(),
        entries,
    };
    let few = few.lasting(Some(2));
    for (entry, seen) in few.entries.iter().zip(run(&few)?) {
        let problems = problems(entry, &seen);
        ensure!(problems.is_empty(), "{}: {}\n{seen:#?}", entry.name, verdict::shown(&problems));
    }
    Ok(())
}

/// `git add` of 1,000 files, `git status`, `git clone`.
fn instructions() -> Result<()> {
    let names = ["git.add", "git.status", "git.clone"];
    let all = list::all(&paths::root().join("workloads"))?;
    for workload in list::choose(all, &names.map(String::from))? {
        let options = MachineOptions { mem: workload.mem.clone(), ..xtask::workload::counting() };
        let machine = lab::machine(&options, &workload.image)?;
        let seen = guest::run(&machine, &workload, &ui::step(&workload.name))?;
        for (entry, seen) in workload.entries.iter().zip(seen) {
            ensure!(entry.instructions.is_some() && seen.counted, "{}: {seen:#?}", entry.name);
            let problems = problems(entry, &seen);
            ensure!(problems.is_empty(), "{}: {}\n{seen:#?}", entry.name, verdict::shown(&problems));
        }
    }
    Ok(())
}

/// The soak of the network, for half a minute.
fn soak() -> Result<()> {
    let all = list::for_soak(list::all(&paths::root().join("workloads"))?, true);
    for workload in list::choose(all, &["net.soak".into()])? {
        let mut workload = workload.lasting(Some(25));
        let seen = Network::with(&mut workload, |network, workload| {
            let (mem, kernel) = (workload.mem.clone(), lab::kernel());
            let options = MachineOptions { kernel, mem, snapshot: true, smp: Some(2), ..network.options() };
            let machine = lab::machine(&options, &workload.image)?;
            guest::run(&machine, workload, &ui::step(&workload.name))
        })?;
        for (entry, seen) in workload.entries.iter().zip(seen) {
            let problems = problems(entry, &seen);
            ensure!(problems.is_empty(), "{}: {}\n{seen:#?}", entry.name, verdict::shown(&problems));
        }
    }
    Ok(())
}

const WRONG: &str = r#"
    about = "entries that go wrong, and two that do not"
    image = "test"
    seconds = 1
    forbid = ["fail:"]

    [[entry]]
    name = "first"
    command = 'echo "$name for $seconds on $cpus"'
    require = ["first for 1 on 2"]

    [[entry]]
    name = "status"
    command = "exit 7"

    [[entry]]
    name = "signal"
    command = "kill -SEGV $$"

    [[entry]]
    name = "line"
    command = "echo fail: it says so"

    [[entry]]
    name = "memory"
    command = "head -c 40000000 /dev/zero > /dev/shm/rest"

    [[entry]]
    name = "log"
    command = "echo '<3>something is wrong' > /dev/kmsg"

    [[entry]]
    name = "hangs"
    slack = 3
    command = "sleep 1000 & sleep 1000"

    [[entry]]
    name = "dies"
    command = "echo b > /proc/sysrq-trigger; sleep 1000"

    [[entry]]
    name = "last"
    command = "true"
"#;

fn wrong() -> Result<()> {
    let wrong = Workload::parse("wrong", WRONG)?;
    let seen = run(&wrong)?;
    let found = |name: &str| -> Result<String> {
        let index = wrong.entries.iter().position(|entry| entry.name == name).context("no such entry")?;
        Ok(verdict::shown(&problems(&wrong.entries[index], &seen[index])))
    };
    for (name, expected) in [
        ("first", ""),
        ("status", "its status is 7"),
        ("signal", "its status is 139, as if signal 11 had ended it"),
        ("line", "it says \"fail: it says so\""),
        ("hangs", "no end within 4 s"),
        ("last", ""),
    ] {
        ensure!(found(name)? == expected, "{name}: {:?}", found(name)?);
    }
    for (name, part) in [
        ("memory", "KiB of memory did not come back"),
        ("log", "something is wrong"),
        ("dies", "the machine stopped before the program had ended"),
    ] {
        ensure!(found(name)?.contains(part), "{name}: {:?}", found(name)?);
    }
    let hang = seen.iter().find(|seen| seen.end == guest::End::Late).context("nothing hangs")?;
    ensure!(hang.log.iter().any(|line| line.contains("Show Blocked State")), "{:#?}", hang.log);
    Ok(())
}

fn run(workload: &Workload) -> Result<Vec<Seen>> {
    let options = MachineOptions { mem: workload.mem.clone(), ..lab::options() };
    let machine = lab::machine(&options, &workload.image)?;
    guest::run(&machine, workload, &ui::step(&workload.name))
}
