//! The kernel command line, with Linux's words (kernel-parameters): what the kernel knows it takes, and what it does
//! not know goes to init: `key=value` into its environment, other words to its arguments, like everything after `--`.

use alloc::string::String;
use alloc::vec::Vec;

use crate::sync::Once;

/// The parsed command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cmdline {
    pub raw: String,
    pub root: String,
    /// Types to try, from `rootfstype=`, else empty.
    pub root_fs_types: Vec<String>,
    pub root_read_only: bool,
    pub init: Option<String>,
    pub init_args: Vec<String>,
    pub init_env: Vec<String>,
    /// Messages below this level (0–7, 7 = debug shown) go to the console.
    pub log_level: u8,
    flags: Vec<String>,
}

static CMDLINE: Once<Cmdline> = Once::new();

pub fn init(raw: &str) -> &'static Cmdline {
    CMDLINE.call_once(|| Cmdline::parse(raw))
}

pub fn get() -> &'static Cmdline {
    CMDLINE.call_once(|| Cmdline::parse(""))
}

/// Is this word on the command line (before `--`)?
pub fn has_flag(word: &str) -> bool {
    get().flags.iter().any(|flag| flag == word)
}

/// The value of `key=value`, the last one given.
pub fn value(key: &str) -> Option<&'static str> {
    get().flags.iter().rev().find_map(|flag| flag.strip_prefix(key)?.strip_prefix('='))
}

const DEFAULT_LOG_LEVEL: u8 = 7;
const QUIET_LOG_LEVEL: u8 = 4;
const DEBUG_LOG_LEVEL: u8 = 10;

/// Words that are the kernel's own, without or with a value; others go to init.
const KNOWN: &[&str] = &[
    "console",
    "earlycon",
    "rootwait",
    "rootdelay",
    "norandmaps",
    "nokaslr",
    "maxcpus",
    "nosmp",
    "panic",
    "ignore_loglevel",
    "printk.time",
    "mitigations",
    "rootflags",
    "kpti",
];

impl Cmdline {
    pub fn parse(raw: &str) -> Cmdline {
        let mut line = Cmdline {
            raw: raw.into(),
            root: String::new(),
            root_fs_types: Vec::new(),
            root_read_only: true,
            init: None,
            init_args: Vec::new(),
            init_env: Vec::new(),
            log_level: DEFAULT_LOG_LEVEL,
            flags: Vec::new(),
        };
        let mut words = split_words(raw).into_iter();
        for word in words.by_ref() {
            if word == "--" {
                break;
            }
            line.take_word(word);
        }
        line.init_args.extend(words);
        line
    }

    fn take_word(&mut self, word: String) {
        let (key, value) = match word.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (word.as_str(), None),
        };
        match (key, value) {
            ("root", Some(value)) => self.root = value.into(),
            ("rootfstype", Some(value)) => self.root_fs_types = value.split(',').map(String::from).collect(),
            ("init", Some(value)) => {
                self.init = Some(value.into());
                // Linux: words before init= are not init's arguments.
                self.init_args.clear();
            }
            ("ro", None) => self.root_read_only = true,
            ("rw", None) => self.root_read_only = false,
            ("quiet", None) => self.log_level = QUIET_LOG_LEVEL,
            ("debug", None) => self.log_level = DEBUG_LOG_LEVEL,
            ("loglevel", Some(value)) => self.log_level = value.parse().unwrap_or(self.log_level),
            // A dot marks a module's parameter.
            (key, _) if KNOWN.contains(&key) || key.contains('.') => {}
            (_, Some(_)) => self.init_env.push(word.clone()),
            (_, None) => self.init_args.push(word.clone()),
        }
        self.flags.push(word);
    }
}

/// Splits at blanks; double quotes keep blanks together and are removed.
fn split_words(raw: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    let mut started = false;
    for c in raw.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                started = true;
            }
            c if c.is_ascii_whitespace() && !quoted => {
                if started {
                    words.push(core::mem::take(&mut word));
                    started = false;
                }
            }
            c => {
                word.push(c);
                started = true;
            }
        }
    }
    if started {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn linux_parameters() {
        let line = Cmdline::parse("console=ttyAMA0 root=/dev/vda rw init=/bin/x quiet FOO=bar single -- a \"b c\"");
        assert_eq!(line.root, "/dev/vda");
        assert!(!line.root_read_only);
        assert_eq!(line.init.as_deref(), Some("/bin/x"));
        assert_eq!(line.log_level, QUIET_LOG_LEVEL);
        assert_eq!(line.init_env, ["FOO=bar".to_string()]);
        assert_eq!(line.init_args, ["single".to_string(), "a".to_string(), "b c".to_string()]);
    }

    #[test]
    fn module_parameters_are_not_init_arguments() {
        let line = Cmdline::parse("virtio_blk.queues=3 loglevel=2 nokaslr");
        assert!(line.init_env.is_empty() && line.init_args.is_empty());
        assert_eq!(line.log_level, 2);
    }
}
