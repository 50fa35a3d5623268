//! The wire between a guest's card and QEMU's user network, when it is to be a bad one: `--faults`.
//!
//! QEMU's card has a datagram socket for its other end, and so has the user network, through a hub; what comes out of one of
//! them goes into the other here. Sockets and QEMU's monitor are pairs that QEMU inherits, so there are no ports or paths
//! that two machines could both want, and all of it ends with QEMU.
//!
//! * [`faults`]: what is to go wrong how often, and what that means for the frame with a certain number.
//! * [`mod@line`]: one direction, with what waits in it.
//! * [`shim`]: the thread that passes frames.
//! * [`flood`]: frames of machines that are not there.
//! * [`monitor`] takes the cable out of the card.
//! * [`control`]: all of this by HTTP, for the guest and for programs on the host.

pub mod control;
pub mod faults;
pub mod flood;
pub mod line;
pub mod monitor;
pub mod shim;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustix::io::{FdFlags, fcntl_setfd};

pub use faults::Faults;

use crate::guest::Guest;
use control::Control;
use monitor::Monitor;
use shim::Shim;

/// What the card is called in QEMU, whose link is set by that.
pub const CARD: &str = "card";

/// Our ends of what QEMU inherits the other ends of.
struct Ours {
    card: UnixDatagram,
    network: UnixDatagram,
    monitor: UnixStream,
}

/// A wire that is in use. Dropped, it is gone.
pub struct Wire {
    shim: Arc<Shim>,
    _control: Option<Control>,
}

/// What QEMU is told of its ends, which it knows by these names or numbers.
fn add_ends(qemu: &mut Command, [card, network, monitor]: [&str; 3]) {
    qemu.args(["-netdev", &format!("dgram,id=near,local.type=fd,local.str={card}")]);
    qemu.args(["-netdev", &format!("dgram,id=far,local.type=fd,local.str={network}")]);
    qemu.args(["-netdev", "hubport,id=far-port,hubid=1,netdev=far"]);
    qemu.args(["-netdev", "hubport,id=net-port,hubid=1,netdev=net"]);
    qemu.args(["-chardev", &format!("socket,id=monitor,fd={monitor}"), "-mon", "chardev=monitor,mode=control"]);
}

/// The same for a command line that is only shown.
pub fn add_shown(qemu: &mut Command) {
    add_ends(qemu, ["CARD", "NETWORK", "MONITOR"]);
}

/// Starts QEMU, whose card has the netdev `near` and whose network is `net`, with a wire between them.
pub fn start(mut qemu: Command, faults: &Faults) -> Result<Guest> {
    let pair = || UnixDatagram::pair().context("no sockets for the network");
    let ((card, card_end), (network, network_end)) = (pair()?, pair()?);
    let (monitor, monitor_end) = UnixStream::pair()?;
    let ends: [OwnedFd; 3] = [card_end.into(), network_end.into(), monitor_end.into()];
    let names = ends.each_ref().map(|end| end.as_raw_fd().to_string());
    add_ends(&mut qemu, names.each_ref().map(String::as_str));
    let inherit = move || -> io::Result<()> { Ok(ends.iter().try_for_each(|end| fcntl_setfd(end, FdFlags::empty()))?) };
    // SAFETY: a few system calls between fork and exec, without any memory.
    unsafe { qemu.pre_exec(inherit) };
    // Before QEMU, so that a port that is in use is told without it.
    let wire = Wire::new(Ours { card, network, monitor }, faults)?;
    Guest::start(qemu).map(|guest| guest.with_wire(wire))
}

impl Wire {
    fn new(ours: Ours, faults: &Faults) -> Result<Wire> {
        let shim = Shim::start(ours.card, ours.network, faults)?;
        let monitor = Arc::new(Monitor::new(ours.monitor));
        let control = faults.control.as_ref().map(|door| Control::listen(door, shim.clone(), monitor)).transpose()?;
        Ok(Wire { shim, _control: control })
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shim.stop();
    }
}
