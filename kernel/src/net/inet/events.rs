//! What has happened since the machine started, for /proc/net/snmp and snmp6: counted by each CPU, summed when somebody asks.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::arch::{MAX_CPUS, PerCpu};

/// Of datagrams, in the order in which /proc/net/snmp has them.
#[derive(Clone, Copy)]
pub enum Datagram {
    /// Read by programs.
    Received,
    /// Nobody was there for it.
    NoPort,
    /// Lost here, for want of room or for another reason.
    Lost,
    Sent,
    /// Those that were lost for want of room.
    NoRoom,
}

/// Of connections.
#[derive(Clone, Copy)]
pub enum Connection {
    Begun,
    Answered,
}

const DATAGRAM: usize = 5;
const CONNECTION: usize = 2;
/// IPv4 and IPv6, UDP and UDP-Lite.
const KINDS: usize = 4;

type Events<const N: usize> = PerCpu<[AtomicU64; N]>;

static DATAGRAMS: Events<{ KINDS * DATAGRAM }> =
    PerCpu::new([const { [const { AtomicU64::new(0) }; KINDS * DATAGRAM] }; MAX_CPUS]);
static CONNECTIONS: Events<CONNECTION> = PerCpu::new([const { [const { AtomicU64::new(0) }; CONNECTION] }; MAX_CPUS]);

fn sums<const N: usize>(events: &Events<N>, first: usize) -> impl Iterator<Item = u64> {
    (first..N).map(move |at| events.iter().map(|part| part[at].load(Ordering::Relaxed)).sum())
}

#[inline(always)]
fn first(v4: bool, lite: bool) -> usize {
    DATAGRAM * (2 * usize::from(!v4) + usize::from(lite))
}

#[inline(always)]
pub fn datagram(v4: bool, lite: bool, what: Datagram) {
    DATAGRAMS.get()[first(v4, lite) + what as usize].fetch_add(1, Ordering::Relaxed);
}

pub fn connection(what: Connection) {
    CONNECTIONS.get()[what as usize].fetch_add(1, Ordering::Relaxed);
}

/// As many of each as there are of [`Datagram`].
pub fn datagrams(v4: bool, lite: bool) -> impl Iterator<Item = u64> {
    sums(&DATAGRAMS, first(v4, lite)).take(DATAGRAM)
}

/// Those that were begun, and answered.
pub fn connections() -> impl Iterator<Item = u64> {
    sums(&CONNECTIONS, 0)
}
