//! A card that makes checksums and cuts segments: QEMU's is one with a tap device behind it. The device is in a network namespace of its own,
//! where this program runs once more ([`inside`]), beside the servers.

use std::env;
use std::net::Ipv4Addr;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use pollux_tests::{lab, run_on};
use xtask::machine::{KernelKind, MachineOptions};
use xtask::provision::{IP, UNSHARE};

use crate::network::{LIMIT, tcp_echo, udp_echo};
use crate::trial;

/// Set where the tap device is.
const INSIDE: &str = "POLLUX_TEST_TAP";
/// The other end of the wire.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// What makes taps.
const TUN: &str = "/dev/net/tun";

/// Makes the wire, then runs the program that it is given.
const SCRIPT: &str = "ip link set lo up && ip tuntap add dev tap0 mode tap vnet_hdr && ip addr add 10.0.2.2/24 dev tap0 && \
    ip link set tap0 up && exec \"$0\"";

/// Of unshare(1): a namespace of the network, and one of users so that it may be made.
const NAMESPACES: [&str; 3] = ["--user", "--net", "--map-root-user"];

pub fn trials() -> Vec<Trial> {
    let name = "network::a_card_that_makes_checksums_and_cuts_segments";
    let why = refusal();
    if let Some(why) = &why {
        eprintln!("{name} is left out: {why}");
    }
    vec![trial(name, outside).with_ignored_flag(why.is_some())]
}

/// Why this host has no tap device for us.
fn refusal() -> Option<String> {
    if let Err(error) = std::fs::OpenOptions::new().read(true).write(true).open(TUN) {
        return Some(format!("{TUN}: {error}"));
    }
    let output = Command::new(UNSHARE.find()?).args(NAMESPACES).arg("true").output().ok()?;
    let refused = || format!("unshare: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    (!output.status.success()).then(refused)
}

fn outside() -> Result<()> {
    if lab::kernel() == KernelKind::Linux {
        // Debian's kernel has the driver as a module, too late for `ip=`.
        return Ok(());
    }
    // There is no way to get anything in there.
    lab::boot()?;
    lab::pristine("test")?;
    IP.path()?;
    let mut command = UNSHARE.command()?;
    command.args(NAMESPACES).args(["sh", "-c", SCRIPT]);
    let output = command.arg(env::current_exe()?).env(INSIDE, "1").output().context("unshare does not start")?;
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    ensure!(output.status.success(), "{}: {}", output.status, said.concat());
    Ok(())
}

/// In the namespace: what this program does there instead of running tests.
pub fn inside() -> Option<ExitCode> {
    env::var_os(INSIDE)?;
    Some(match exchange() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    })
}

/// Ten megabytes there and back, datagrams in pieces, and ends of all kinds; and in how many frames that was.
fn exchange() -> Result<()> {
    let ports = [tcp_echo(HOST)?, udp_echo(HOST)?].map(|port| port.to_string());
    let options = MachineOptions {
        append: "ip=10.0.2.15::10.0.2.2:255.255.255.0".into(),
        no_net: true,
        qemu: "-netdev tap,id=tap,ifname=tap0,script=no,downscript=no -device virtio-net-device,netdev=tap".into(),
        ..lab::options()
    };
    let machine = lab::machine(&options, "test")?;
    // Nobody is at port 9.
    let script =
        format!("probe net {} {} 9; tr ':' ' ' < /proc/net/dev | awk '/eth0/ {{ print $3, $11 }}'", ports[0], ports[1]);
    let text = lab::text_of(run_on(&machine, &["sh", "-c", &script], b"", LIMIT)?)?;
    let (said, frames) = text.trim_end().rsplit_once('\n').context("no frames")?;
    let expected = "echo: 10485760 bytes back\n\
        datagrams: 1 true true, 512 true true, 1472 true true, 1473 true true, 8000 true true, \n\
        nobody: Some(ConnectionRefused)\n\
        nobody to send to: Some(ConnectionRefused)\n\
        later: -1 true, 1 4, 0, 10.0.2.15 10.0.2.2\n\
        reset: hello\n\
        many: 100 good\n\
        unreachable: Some(HostUnreachable)";
    ensure!(said == expected, "{said}");
    let counts: Vec<u64> = frames.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    // Of 1448 bytes each they would be more than 7,200, besides acknowledgements and 100 connections.
    ensure!(matches!(counts[..], [1..5000, 1..5000]), "{frames} frames came and went");
    Ok(())
}
