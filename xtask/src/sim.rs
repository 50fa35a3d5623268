//! `cargo xtask sim`: the kernel on simulated machines (docs/simulation.md).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::provision::{self, DEBUGFS, E2FSCK, MKE2FS};
use crate::{build, outln, paths, ui};

#[derive(Args)]
pub struct Options {
    /// Run this seed only, and twice: the trace must be the same
    #[arg(long)]
    seed: Option<u64>,
    /// Steps (points where CPUs may be switched) after which a run counts as endless
    #[arg(long)]
    steps: Option<u64>,
    /// Run new seeds for so long
    #[arg(long, default_value_t = 1.0, value_parser = parse_minutes)]
    minutes: f64,
    /// Run at most so many seeds
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed; else the time of day decides
    #[arg(long)]
    first: Option<u64>,
    /// CPUs of each machine; else the seed decides
    #[arg(long)]
    cpus: Option<usize>,
    /// Name the scenarios and end
    #[arg(long)]
    list: bool,
    /// With --seed: print the whole trace, also of a run that goes well
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Run the seeds of sim/seeds.txt, which failed once, and no others
    #[arg(long)]
    known: bool,
    /// Break a copy of the kernel on purpose, and see whether that is noticed. "list" names the ways
    #[arg(long = "break", value_name = "WAY")]
    broken: Option<String>,
    /// Only these scenarios; else all of them
    scenarios: Vec<String>,
}

fn parse_minutes(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|minutes| *minutes > 0.0 && *minutes < 1e6)
        .ok_or_else(|| "not a number above 0".to_string())
}

impl Options {
    pub fn run(self) -> Result<u8> {
        if self.broken.as_deref() == Some("list") {
            BREAKS.iter().for_each(|way| outln!("{:16} {}", way.name, way.about));
            return Ok(0);
        }
        let (root, target) = match &self.broken {
            None => (paths::root(), paths::target()),
            Some(name) => {
                let way = BREAKS.iter().find(|way| way.name == *name);
                broken_tree(way.with_context(|| format!("no way to break {name:?}: see --break list"))?)?
            }
        };
        let simulator = simulator(&root, &target)?;
        let status = self.command(&simulator).status()?;
        if self.broken.is_none() {
            return Ok(status.code().unwrap_or(1) as u8);
        }
        match status.code() {
            Some(1) => outln!("noticed"),
            Some(0) => outln!("NOT noticed"),
            _ => bail!("the simulator failed: {status}"),
        }
        Ok(u8::from(status.success()))
    }

    fn command(&self, simulator: &Path) -> Command {
        let mut command = Command::new(simulator);
        command.arg("--minutes").arg(self.minutes.to_string());
        let numbers =
            [("--seed", self.seed), ("--steps", self.steps), ("--seeds", self.seeds), ("--first", self.first)];
        for (name, value) in numbers.into_iter().chain([("--cpus", self.cpus.map(|cpus| cpus as u64))]) {
            if let Some(value) = value {
                command.arg(name).arg(value.to_string());
            }
        }
        command.args(self.list.then_some("--list")).args(self.trace.then_some("--trace"));
        if self.known {
            command.arg("--known").arg(seeds());
        }
        command.args(&self.scenarios);
        command
    }
}

/// Seeds that failed once.
fn seeds() -> PathBuf {
    paths::root().join("sim/seeds.txt")
}

fn simulator(root: &Path, target: &Path) -> Result<PathBuf> {
    provision::need(&[MKE2FS, DEBUGFS, E2FSCK])?;
    let _step = ui::step_if_long("Building pollux-sim");
    let mut cargo = build::cargo(None);
    cargo.current_dir(root).args(["build", "--quiet", "--locked", "--profile", "sim", "--package", "pollux-sim"]);
    cargo.arg("--target-dir").arg(target);
    ui::run_openly(&mut cargo)?;
    Ok(target.join("sim/pollux-sim"))
}

/// For `cargo xtask test`: all seeds that ever failed, then new ones for a minute. Answers whether all went well.
pub fn test() -> Result<bool> {
    let simulator = simulator(&paths::root(), &paths::target())?;
    let known = Command::new(&simulator).arg("--known").arg(seeds()).status()?;
    let new = Command::new(&simulator).args(["--minutes", "1"]).status()?;
    Ok(known.success() && new.success())
}

/// A way to break the kernel: one replacement in one file.
struct Break {
    name: &'static str,
    about: &'static str,
    file: &'static str,
    old: &'static str,
    new: &'static str,
}

const BREAKS: &[Break] = &[
    Break {
        name: "sem-give-up",
        about: "a semaphore operation whose time is up forgets that it was done",
        file: "kernel/src/ipc/sem/wait.rs",
        old: "Ok(Err(_)) => turn.leave().unwrap_or(Err(Errno::EAGAIN)),",
        new: "Ok(Err(_)) => Err(Errno::EAGAIN),",
    },
    Break {
        name: "sem-undo",
        about: "who waits for a semaphore is not served when a process undoes",
        file: "kernel/src/ipc/sem/undo.rs",
        old: "        state.settle(now, None, &mut served);\n",
        new: "",
    },
    Break {
        name: "msg-give-up",
        about: "a receiver that a signal interrupts forgets the message it was handed",
        file: "kernel/src/ipc/msg/transfer.rs",
        old: "Err(_) => turn.leave().ok_or(Restart::NoHand)?,",
        new: "Err(_) => return Err(Restart::NoHand.into()),",
    },
    Break {
        name: "futex-recheck",
        about: "FUTEX_WAIT looks at the word before it locks the bucket",
        file: "kernel/src/futex/wait.rs",
        old: "    let mut bucket = lock(key.bucket());\n    match arch::user::load_u32(addr) {",
        new: "    let found = arch::user::load_u32(addr);\n    let mut bucket = lock(key.bucket());\n    match found {",
    },
    Break {
        name: "futex-timeout",
        about: "a futex waiter whose time is up forgets the wake that was spent on it",
        file: "kernel/src/futex/wait.rs",
        old: "if outcome.is_none() && attempt.give_up() {",
        new: "if outcome.is_none() && request.bitset == 0 && attempt.give_up() {",
    },
    Break {
        name: "wait-handover",
        about: "a waiter of a wait queue that is dropped keeps the wake that was spent on it",
        file: "kernel/src/exec/wait.rs",
        old: "    fn drop(&mut self) {\n        if self.detach() {\n            self.pass_on();\n        }\n",
        new: "    fn drop(&mut self) {\n        self.detach();\n",
    },
    Break {
        name: "drain-lock",
        about: "a CPU whose inbox a thief has emptied sleeps before the thief has put back what it leaves",
        file: "kernel/src/exec/wake.rs",
        old: "        drop(self.queue.lock());\n",
        new: "",
    },
    Break {
        name: "task-woken",
        about: "a task that is woken between its poll and its sleep is not polled again",
        file: "kernel/src/exec/runnable.rs",
        old: "        if state.bits.fetch_and(!POLLED, AcqRel) & WOKEN != 0 {",
        new: "        let woken = state.bits.load(Acquire) & WOKEN != 0;
        switch_point();
        state.bits.store(0, Release);
        if woken {",
    },
    Break {
        name: "accept-room",
        about: "who waits to connect is not told that an accept has made room",
        file: "kernel/src/net/unix/connect.rs",
        old: "        // There is room for one.
        self.room.wake_one();
",
        new: "",
    },
    Break {
        name: "splice-claim",
        about: "a splice that gives up room in a pipe does not tell who waits for it",
        file: "kernel/src/fs/pipe/hold.rs",
        old: "        state.claimed = 0;
        state.count_readers();
        drop(state);
        self.pipe.queue.wake(usize::MAX, WRITABLE);
",
        new: "        state.claimed = 0;
        state.count_readers();
        drop(state);
",
    },
    Break {
        name: "rights-circle",
        about: "sockets whose messages hold each other are found, and their queues not emptied",
        file: "kernel/src/net/rights.rs",
        old: "        socket.empty();
",
        new: "        let _ = socket;
",
    },
    Break {
        name: "userfault-recheck",
        about: "a thread whose fault is in line does not ask whether the page has come meanwhile",
        file: "kernel/src/fs/userfault/mod.rs",
        old: "            if !must_wait() {
                return Outcome::Again;
            }
",
        new: "",
    },
    Break {
        name: "ext2-flush-order",
        about: "sync flushes the disk before it writes metadata",
        file: "kernel/src/fs/ext2/writeback.rs",
        old: "        let (result, stored) = self.write_blocks().await;
        let flushed = self.device.flush().await;",
        new: "        let flushed = self.device.flush().await;
        let (result, stored) = self.write_blocks().await;",
    },
    Break {
        name: "ext2-content-flush",
        about: "maps are written while the content that they lead to is in the disk's cache",
        file: "kernel/src/fs/ext2/writeback.rs",
        old: "        if !self.unflushed.swap(false, Ordering::AcqRel) && !some {",
        new: "        if !some {",
    },
];

impl Break {
    fn apply(&self, text: &str) -> Result<String> {
        let found = text.matches(self.old).count();
        ensure!(found == 1, "{}: the text to replace is {found} times in {}", self.name, self.file);
        Ok(text.replace(self.old, self.new))
    }
}

/// Copies the workspace with a broken kernel. Answers where it is, and its target directory.
fn broken_tree(way: &Break) -> Result<(PathBuf, PathBuf)> {
    let (root, copy) = (paths::root(), paths::out().join("broken"));
    let tree = copy.join("tree");
    copy_tree(&root, &tree, &|path| {
        let text = fs::read(path)?;
        if path == root.join(way.file) { Ok(way.apply(&String::from_utf8(text)?)?.into_bytes()) } else { Ok(text) }
    })?;
    Ok((tree, copy.join("target")))
}

/// Copies files, touching only those that change, and removes what is not there any more.
fn copy_tree(from: &Path, to: &Path, content: &dyn Fn(&Path) -> Result<Vec<u8>>) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, path) = (entry.file_name(), entry.path());
        if entry.file_type()?.is_dir() {
            if name != "target" && name != ".git" {
                copy_tree(&path, &to.join(name), content)?;
            }
        } else if name != ".git" {
            build::write_if_changed(&to.join(name), &content(&path)?)?;
        }
    }
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        if !from.join(entry.file_name()).exists() {
            let path = entry.path();
            if entry.file_type()?.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_broken_is_there() {
        for way in BREAKS {
            let text = fs::read_to_string(paths::root().join(way.file)).unwrap();
            assert_ne!(way.apply(&text).unwrap(), text);
        }
    }
}
