//! What there is to run: `workloads/NAME.toml`. They are data; what they mean is here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::wire::Faults;

/// Programs that run one after another in guests with the same image.
#[derive(Clone, Debug)]
pub struct Workload {
    pub name: String,
    /// One line.
    pub about: String,
    /// A recipe's name. The image must have `sh` and `timeout`.
    pub image: String,
    /// Memory of the guest, as QEMU takes it.
    pub mem: String,
    /// It takes hours: runs only when it is asked for.
    pub long: bool,
    /// A Python script next to the workloads that serves on the host's loopback while they run. See [`super::server`].
    pub server: Option<String>,
    /// Tools of the host that the script takes, besides those of all such scripts.
    pub host: Vec<String>,
    /// Ports of the guest that the script reaches.
    pub forward: Vec<u16>,
    /// What is wrong with the network: then there is a wire that entries tell what to do. See [`crate::wire::control`].
    pub faults: Option<Faults>,
    /// Variables that the commands know: what the server tells.
    pub env: Vec<(String, String)>,
    pub entries: Vec<Entry>,
}

/// One of them: it went well if it ends in time with status 0, says what it must and nothing that it must not, all
/// memory comes back, and the kernel warns of nothing.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    pub name: String,
    /// For the guest's shell, which knows `$name`, `$seconds` and `$cpus`.
    pub command: String,
    pub seconds: u32,
    /// So much longer it may take, in seconds.
    pub slack: u32,
    /// Its output has all of these.
    pub require: Vec<String>,
    /// No line of its output has one of these.
    pub forbid: Vec<String>,
    /// Warnings of the kernel with one of these do not count.
    pub quiet: Vec<String>,
    /// Where instructions are counted it may execute so many at most, in 10^9.
    pub instructions: Option<f64>,
    /// Its rates by their names, as parts of what Linux reaches. See [`super::rate`].
    pub goals: BTreeMap<String, f64>,
    /// It gets a boot of its own.
    pub fresh: bool,
    /// It runs only with --soak, and then for so long.
    pub soak: bool,
}

/// The document.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    about: String,
    image: String,
    #[serde(default = "memory")]
    mem: String,
    #[serde(default)]
    long: bool,
    server: Option<String>,
    #[serde(default)]
    host: Vec<String>,
    #[serde(default)]
    forward: Vec<u16>,
    faults: Option<String>,
    #[serde(default = "seconds")]
    seconds: u32,
    #[serde(default = "slack")]
    slack: u32,
    /// That of the entries that have none of their own.
    command: Option<String>,
    #[serde(default)]
    require: Vec<String>,
    #[serde(default)]
    forbid: Vec<String>,
    #[serde(default)]
    quiet: Vec<String>,
    /// Entries of which there is nothing else to say.
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    entry: Vec<Special>,
}

/// What an entry has for itself; lists are added to those of the document.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Special {
    name: String,
    command: Option<String>,
    seconds: Option<u32>,
    slack: Option<u32>,
    #[serde(default)]
    require: Vec<String>,
    #[serde(default)]
    forbid: Vec<String>,
    #[serde(default)]
    quiet: Vec<String>,
    instructions: Option<f64>,
    #[serde(default)]
    goals: BTreeMap<String, f64>,
    #[serde(default)]
    fresh: bool,
    #[serde(default)]
    soak: bool,
}

fn memory() -> String {
    "512M".into()
}

fn seconds() -> u32 {
    20
}

fn slack() -> u32 {
    60
}

impl Document {
    fn entry(&self, special: Special) -> Result<Entry> {
        let name = special.name;
        ensure!(
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)),
            "{name:?} is not a name of letters, digits, `-` and `_`"
        );
        let both = |all: &[String], own: Vec<String>| all.iter().cloned().chain(own).collect();
        let seconds = special.seconds.unwrap_or(self.seconds);
        ensure!(seconds > 0, "{name} runs for no second at all");
        Ok(Entry {
            command: special.command.or(self.command.clone()).with_context(|| format!("{name} has no command"))?,
            seconds,
            slack: special.slack.unwrap_or(self.slack),
            require: both(&self.require, special.require),
            forbid: both(&self.forbid, special.forbid),
            quiet: both(&self.quiet, special.quiet),
            instructions: special.instructions,
            goals: special.goals,
            fresh: special.fresh,
            soak: special.soak,
            name,
        })
    }
}

impl Entry {
    /// What it may take, in seconds.
    pub fn limit(&self) -> u32 {
        self.seconds.saturating_add(self.slack)
    }
}

impl Workload {
    pub fn parse(name: &str, text: &str) -> Result<Workload> {
        let mut document: Document = toml::from_str(text)?;
        let plain = std::mem::take(&mut document.names).into_iter();
        let plain = plain.map(|name| Special { name, ..Special::default() });
        let specials: Vec<_> = plain.chain(std::mem::take(&mut document.entry)).collect();
        let entries = specials.into_iter().map(|special| document.entry(special)).collect::<Result<Vec<_>>>()?;
        ensure!(!entries.is_empty(), "there is nothing to run");
        let mut seen = BTreeSet::new();
        for entry in &entries {
            ensure!(seen.insert(&entry.name), "{} is there twice", entry.name);
        }
        let Document { about, image, mem, long, server, host, forward, faults, .. } = document;
        let faults = faults.map(|text| text.parse().map_err(anyhow::Error::msg)).transpose()?;
        let env = Vec::new();
        Ok(Workload { name: name.into(), about, image, mem, long, server, host, forward, faults, env, entries })
    }

    pub fn has_network(&self) -> bool {
        self.server.is_some() || self.faults.is_some()
    }

    /// The same with another time for all that have one.
    pub fn lasting(mut self, seconds: Option<u32>) -> Workload {
        for entry in &mut self.entries {
            entry.seconds = seconds.unwrap_or(entry.seconds);
        }
        self
    }

    pub fn full_name(&self, entry: &Entry) -> String {
        format!("{}.{}", self.name, entry.name)
    }
}

/// All workloads of a folder, in the order of their names.
pub fn all(folder: &Path) -> Result<Vec<Workload>> {
    let files = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = files.map(|file| Ok(file?.path())).collect::<Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path)?;
        Workload::parse(&path.file_stem().unwrap_or_default().to_string_lossy(), &text)
    };
    paths.iter().map(|path| read(path).with_context(|| format!("{} is not a workload", path.display()))).collect()
}

/// Those with entries for a soak, and nothing else of them; or all others.
pub fn for_soak(all: Vec<Workload>, soak: bool) -> Vec<Workload> {
    let of = |workload: Workload| {
        let entries = workload.entries.iter().filter(|entry| entry.soak == soak).cloned().collect();
        Workload { entries, ..workload }
    };
    all.into_iter().map(of).filter(|workload| !workload.entries.is_empty()).collect()
}

/// Whether somebody asks for an entry by this name, which may end in `*`.
fn matches(asked: &str, name: &str) -> bool {
    asked.strip_suffix('*').map_or(asked == name, |start| name.starts_with(start))
}

/// Those with these names, `WORKLOAD` or `WORKLOAD.ENTRY`, which may end in `*`; without names, all that are not only run
/// when asked for.
pub fn choose(all: Vec<Workload>, names: &[String]) -> Result<Vec<Workload>> {
    for name in names {
        let (workload, entry) = name.split_once('.').map_or((name.as_str(), None), |(name, entry)| (name, Some(entry)));
        let Some(found) = all.iter().find(|other| other.name == workload) else {
            let known: Vec<&str> = all.iter().map(|workload| workload.name.as_str()).collect();
            bail!("there is no workload {workload:?} (there are: {})", known.join(", "));
        };
        if let Some(entry) = entry.filter(|entry| !found.entries.iter().any(|other| matches(entry, &other.name))) {
            let known: Vec<&str> = found.entries.iter().map(|entry| entry.name.as_str()).collect();
            let known = match &known[..] {
                [first, .., last] if known.len() > 100 => format!("{} from {first} to {last}", known.len()),
                all => all.join(", "),
            };
            bail!("the workload {workload} has no entry {entry:?} (it has: {known})");
        }
    }
    let wanted = |workload: &Workload, entry: &Entry| {
        let asked = |name: &String| *name == workload.name || matches(name, &workload.full_name(entry));
        (names.is_empty() && !workload.long) || names.iter().any(asked)
    };
    let chosen = all.into_iter().map(|workload| {
        let entries = workload.entries.iter().filter(|entry| wanted(&workload, entry)).cloned().collect();
        Workload { entries, ..workload }
    });
    Ok(chosen.filter(|workload| !workload.entries.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipe;

    const TEXT: &str = r#"
        about = "both"
        image = "test"
        seconds = 7
        command = "run $name"
        forbid = ["bad"]
        names = ["one", "two"]
        [[entry]]
        name = "three"
        command = "other"
        slack = 5
        forbid = ["worse"]
        fresh = true
    "#;

    fn names(workloads: &[Workload]) -> Vec<String> {
        workloads.iter().flat_map(|all| all.entries.iter().map(|entry| all.full_name(entry))).collect()
    }

    #[test]
    fn entries_inherit_and_add() {
        let workload = Workload::parse("w", TEXT).unwrap();
        assert_eq!((workload.mem.as_str(), workload.entries.len()), ("512M", 3));
        let [one, _, three] = &workload.entries[..] else { panic!() };
        assert_eq!((one.command.as_str(), one.seconds, one.limit(), one.fresh), ("run $name", 7, 67, false));
        assert_eq!((three.command.as_str(), three.limit(), three.fresh), ("other", 12, true));
        assert_eq!((&one.forbid[..], &three.forbid[..]), (&["bad".into()][..], &["bad".into(), "worse".into()][..]));
        assert_eq!(workload.clone().lasting(Some(2)).entries[2].limit(), 7);
    }

    #[test]
    fn what_is_for_a_soak_runs_only_then() {
        let text = format!("{TEXT}\n[[entry]]\nname = \"four\"\nsoak = true\nfaults = 1");
        assert!(Workload::parse("w", &text).is_err());
        let all = || {
            vec![Workload::parse("v", TEXT).unwrap(), Workload::parse("w", &text.replace("faults = 1", "")).unwrap()]
        };
        assert_eq!(names(&for_soak(all(), true)), ["w.four"]);
        assert_eq!(names(&for_soak(all(), false)).len(), 6);
    }

    #[test]
    fn documents_that_make_no_sense_are_refused() {
        let refusal = |text: &str| format!("{:#}", Workload::parse("w", text).unwrap_err());
        let head = "about = \"\"\nimage = \"test\"\n";
        assert!(refusal(head).contains("nothing to run"));
        assert!(refusal(&format!("{head}names = [\"a\"]")).contains("a has no command"));
        assert!(refusal(&format!("{head}command = \"c\"\nnames = [\"a\", \"a\"]")).contains("twice"));
        assert!(refusal(&format!("{head}command = \"c\"\nnames = [\"a b\"]")).contains("not a name"));
        assert!(refusal(&format!("{head}command = \"c\"\nnames = [\"a\"]\nseconds = 0")).contains("no second"));
        assert!(refusal(&format!("{head}colour = 3")).contains("colour"));
        let faults = format!("faults = \"loss=200\"\n{head}command = \"c\"\nnames = [\"a\"]");
        assert_eq!(refusal(&faults), "loss=200: not a percentage from 0 to 100");
    }

    #[test]
    fn names_choose() {
        let all = || vec![Workload::parse("v", TEXT).unwrap(), Workload::parse("w", TEXT).unwrap()];
        let chosen = |names: &[&str]| choose(all(), &names.iter().map(|name| name.to_string()).collect::<Vec<_>>());
        assert_eq!(names(&chosen(&[]).unwrap()).len(), 6);
        assert_eq!(names(&chosen(&["w.two"]).unwrap()), ["w.two"]);
        assert_eq!(names(&chosen(&["w.two", "v"]).unwrap()), ["v.one", "v.two", "v.three", "w.two"]);
        assert_eq!(names(&chosen(&["w.t*"]).unwrap()), ["w.two", "w.three"]);
        let long = || vec![Workload { long: true, ..Workload::parse("w", TEXT).unwrap() }];
        assert!(choose(long(), &[]).unwrap().is_empty());
        assert_eq!(names(&choose(long(), &["w.one".into()]).unwrap()), ["w.one"]);
        let refusal = |name: &str| chosen(&[name]).unwrap_err().to_string();
        assert_eq!(refusal("x"), "there is no workload \"x\" (there are: v, w)");
        assert_eq!(refusal("v.x"), "the workload v has no entry \"x\" (it has: one, two, three)");
    }

    #[test]
    fn all_workloads_can_be_read_and_have_an_image() {
        let all = all(&crate::paths::root().join("workloads")).unwrap();
        assert!(all.iter().any(|workload| workload.name == "stress-ng"));
        for workload in all {
            Recipe::load(&crate::paths::recipes(), &workload.image).unwrap();
        }
    }
}
