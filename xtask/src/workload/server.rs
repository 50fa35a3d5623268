//! What a workload talks to: ports, a wire, and the servers of a Python script beside it, which listens on the host's loopback, tells where in one line of
//! `NAME=VALUE` words, and ends with its standard input.

use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};

use super::list::Workload;
use crate::machine::MachineOptions;
use crate::network::Forward;
use crate::refusal::PortTaken;
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
    /// Also takes these tools of the host.
    pub fn start(script: &str, tools: &[String], ports: &[(u16, u16)]) -> Result<Server> {
        let named = |name: &String| {
            let tool = provision::TOOLS.into_iter().find(|tool| tool.name == name);
            tool.with_context(|| format!("{script} takes {name:?}, which is not one of the host's tools"))
        };
        let tools = tools.iter().map(named).collect::<Result<Vec<_>>>()?;
        provision::need(&[&[provision::PYTHON, provision::GIT, provision::OPENSSL], &tools[..]].concat())?;
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
    /// Does something with a network, and again with other ports if somebody has taken one of these before QEMU.
    pub fn with<T>(workload: &mut Workload, mut run: impl FnMut(&Network, &Workload) -> Result<T>) -> Result<T> {
        PortTaken::again(|| run(&Network::start(workload)?, workload))
    }

    /// Starts the server, and lets the entries know what it tells, and where the wire takes requests.
    fn start(workload: &mut Workload) -> Result<Network> {
        let ports = ports_for(&workload.forward)?;
        let server =
            workload.server.as_deref().map(|script| Server::start(script, &workload.host, &ports)).transpose()?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::ATTEMPTS;

    #[test]
    fn ports_that_are_taken_are_replaced_by_others() {
        let text = "about = \"a\"\nimage = \"test\"\nseconds = 1\nforward = [80, 81]\n[[entry]]\nname = \"one\"\ncommand = \"true\"\n";
        let mut workload = Workload::parse("some", text).unwrap();
        let mut tried = Vec::new();
        // Somebody takes them now.
        let mut others = Vec::new();
        let found = Network::with(&mut workload, |network, workload| {
            assert_eq!(workload.forward, [80, 81]);
            tried.push(network.ports.clone());
            if tried.len() < 3 {
                others.push(TcpListener::bind((Ipv4Addr::LOCALHOST, network.ports[1].1))?);
                return Err(PortTaken.into());
            }
            Ok(network.ports.clone())
        });
        let found = found.unwrap();
        assert_eq!((tried.len(), &tried[2]), (3, &found));
        assert!(tried[..2].iter().all(|ports| found.iter().all(|(_, port)| *port != ports[1].1)));
        let mut count = |error: fn() -> anyhow::Error| {
            let mut count = 0;
            let end: Result<()> = Network::with(&mut workload, |_, _| {
                count += 1;
                Err(error())
            });
            (count, end.unwrap_err().is::<PortTaken>())
        };
        assert_eq!(count(|| anyhow::Error::new(PortTaken).context("some on Pollux")), (ATTEMPTS, true));
        // Nothing else is tried again.
        assert_eq!(count(|| anyhow::anyhow!("nothing runs")), (1, false));
    }
}
