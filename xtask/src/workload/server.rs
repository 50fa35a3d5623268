//! What a workload talks to: ports, a wire, and the servers of a Python script beside it, which listens on the host's loopback, tells where in one line of
//! `NAME=VALUE` words, and ends with its standard input.

use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};

use super::list::Workload;
use crate::machine::MachineOptions;
use crate::network::Forward;
use crate::wire::Faults;
use crate::wire::control::Door;
use crate::{paths, provision};

/// Ports on the host's loopback that nobody uses now, for ports of the guest: pairs of the guest's and the host's.
fn ports_for(guest: &[u16]) -> Result<Vec<(u16, u16)>> {
    let bind = |_: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    // All of them at the same time, so that no two are the same.
    let listeners = guest.iter().map(bind).collect::<io::Result<Vec<_>>>()?;
    let host = listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect::<io::Result<Vec<_>>>()?;
    Ok(guest.iter().copied().zip(host).collect())
}

pub struct Server {
    child: Child,
    /// What it has told.
    pub told: Vec<(String, String)>,
}

impl Server {
    /// Its arguments are the guest's ports that it reaches, and through which of the host's: `GUEST=HOST`.
    pub fn start(script: &str, ports: &[(u16, u16)]) -> Result<Server> {
        provision::need(&[provision::PYTHON, provision::GIT, provision::OPENSSL])?;
        let file = paths::root().join("workloads").join(script);
        let mut command = provision::PYTHON.command()?;
        command
            .arg(&file)
            .args(ports.iter().map(|(guest, host)| format!("{guest}={host}")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
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

/// What a workload has for a network.
pub struct Network {
    server: Option<Server>,
    ports: Vec<(u16, u16)>,
    faults: Option<Faults>,
}

impl Network {
    /// Starts the server, and lets the entries know what it tells, and where the wire takes requests.
    pub fn start(workload: &mut Workload) -> Result<Network> {
        let ports = ports_for(&workload.forward)?;
        let server = workload.server.as_deref().map(|script| Server::start(script, &ports)).transpose()?;
        workload.env = server.as_ref().map(|server| server.told.clone()).unwrap_or_default();
        let control = workload.faults.as_ref().map(|_| Door::any()).transpose()?;
        let wire = control.as_ref().map(|door| format!("http://10.0.2.2:{}", door.port()));
        workload.env.extend(wire.map(|wire| ("wire".into(), wire)));
        let faults = workload.faults.clone().map(|faults| Faults { control, ..faults });
        Ok(Network { server, ports, faults })
    }

    /// The machine's part of it.
    pub fn options(&self) -> MachineOptions {
        MachineOptions {
            no_net: self.server.is_none() && self.faults.is_none(),
            forward: self.ports.iter().map(|(guest, host)| Forward::tcp(*host, *guest)).collect(),
            faults: self.faults.clone(),
            ..MachineOptions::default()
        }
    }
}

impl Drop for Server {
    /// The end of its input is its own.
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
