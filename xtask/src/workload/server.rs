//! The servers of a workload: a Python script beside it, which listens on the host's loopback, tells where in one line of
//! `NAME=VALUE` words, and ends with its standard input.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};

use crate::{paths, provision};

pub struct Server {
    child: Child,
    /// What it has told.
    pub told: Vec<(String, String)>,
}

impl Server {
    pub fn start(script: &str) -> Result<Server> {
        provision::need(&[provision::PYTHON, provision::GIT, provision::OPENSSL])?;
        let file = paths::root().join("workloads").join(script);
        let mut command = provision::PYTHON.command()?;
        command.arg(&file).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{} does not start", file.display()))?;
        let output = child.stdout.take().context("it has an output")?;
        let mut server = Server { child, told: Vec::new() };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let pairs = line.split_whitespace().filter_map(|word| word.split_once('='));
        server.told = pairs.map(|(name, value)| (name.into(), value.into())).collect();
        ensure!(!server.told.is_empty(), "{} says {line:?}, not where it listens", file.display());
        Ok(server)
    }
}

impl Drop for Server {
    /// The end of its input is its own.
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
