//! The network behind a card: what other machines send and are sent.
//!
//! ```text
//!   program ── TcpSocket ⇄ its stand-in ⇄ Stream (a TCP connection of smoltcp) ⇄ Card ⇄ wire
//!   program ── UdpSocket ──── Port ─────▶ lanes ────────────────────────────────▶
//!                 ▲─────────────────────────────────────────────────────────────
//! ```
//!
//! Each card has one task, which alone has the stack ([`engine`]): nobody else sees smoltcp, so there is no lock around it. To
//! the sockets of programs the task is one more program: a connection with another machine is a connection with a hidden
//! `TcpSocket`, the *stand-in*, from which the task takes what was sent and into which it puts what has come
//! (`docs/decisions/050`, `051`). System calls copy from and to user memory under the lock of the socket only.
//!
//! * [`Card`]: what a driver does. [`Port`]: what sockets and programs see of the card: its addresses and where to leave mail.
//! * [`engine`]: one turn of the task: mail, frames, connections that have work, timers. [`wire`]: the stack with its device.
//! * [`connections`]: those with other machines. Only what was touched is looked at: each is a socket set of its own, and [`frame`]
//!   finds out to which one a frame goes, and [`sums`] who looks at its checksum.
//! * [`stream`]: TCP, with [`numbers`] of its own on the wire; [`datagram`]: UDP and what it needs when a neighbour does not answer; [`configure`]: DHCP, the static
//!   address of the command line, and IPv6 addresses from advertised prefixes; [`memberships`]: groups.
//!
//! The task sleeps until its card interrupts, a socket rings, or the next timer of the stack is due.
//!
//! Locks: those of sockets are taken with none of these held; the settings of a port → its mail; mail and neighbours are leaves.

mod configure;
mod connections;
mod datagram;
mod engine;
mod frame;
mod memberships;
mod neighbours;
mod numbers;
mod past;
mod phy;
mod port;
mod recovery;
mod stream;
mod sums;
#[cfg(test)]
mod tests;
mod wire;

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::num::NonZeroUsize;

use crate::drivers::random;
use crate::exec::{self, Instant, Notify};
use crate::net::interface;

pub use configure::{MOST_ADDRESSES, MOST_ROUTES};
pub use datagram::{Charge, Outgoing, OutgoingFrame, Sender};
pub use neighbours::Neighbour;
pub use port::{Cidr, Counters, Port, Settings, Via, solicited};
pub use sums::{Partial, Sum};

/// Bytes of a buffer: the driver's header and the largest frame.
pub const BUFFER: usize = 2048;
/// The largest packet in a frame.
pub const MTU: usize = 1500;
/// The addresses of both sides and the type of what is in it.
pub const ETHERNET_HEADER: usize = 14;

/// Memory for a frame.
pub struct Buffer {
    bytes: Box<[u8]>,
    /// Where the frame begins, and how long it is.
    pub start: usize,
    pub len: usize,
    pub sum: Sum,
    /// The card cuts the segment of TCP that is in it into smaller ones.
    pub cut: Option<Cut>,
}

/// How a segment is cut: bytes that all pieces begin with, and how many each has besides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    pub header: u16,
    pub size: u16,
}

/// What a card does besides sending frames as they are.
#[derive(Clone, Copy, Default, Debug)]
pub struct Offloads {
    /// It makes checksums ([`Sum::Partial`]).
    pub sums: bool,
    /// The longest frame of IPv4 that it cuts into segments ([`Buffer::cut`]).
    pub cuts: Option<NonZeroUsize>,
}

/// A frame that has been received.
pub struct Frame(Buffer);

impl Buffer {
    #[expect(clippy::new_without_default, reason = "it is an allocation")]
    pub fn new() -> Self {
        Buffer::with_room(BUFFER)
    }

    /// For larger frames.
    pub fn with_room(size: usize) -> Self {
        let bytes = alloc::vec![0; size].into_boxed_slice();
        Buffer { bytes, start: 0, len: 0, sum: Sum::Whole, cut: None }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Header and frame.
    pub fn sent_bytes(&self, header: usize) -> &[u8] {
        self.bytes.get(..header + self.len).unwrap_or(&self.bytes[..])
    }

    /// Room for a frame of this length.
    pub fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        self.bytes.get_mut(self.start..self.start + len)
    }
}

impl Frame {
    pub fn new(mut buffer: Buffer, start: usize, end: usize) -> Self {
        (buffer.start, buffer.len) = (start, end.saturating_sub(start));
        Frame(buffer)
    }

    pub fn bytes(&self) -> &[u8] {
        self.0.bytes.get(self.0.start..self.0.start + self.0.len).unwrap_or(&[])
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.bytes.get_mut(self.0.start..self.0.start + self.0.len).unwrap_or(&mut [])
    }
}

/// What a driver of a network card does. Nothing here waits.
pub trait Card: Send + Sync {
    fn mac(&self) -> [u8; 6];
    /// Is there somebody at the other end of the cable?
    fn link(&self) -> bool;
    /// Rung when frames have come, when there is room again, and when the link has changed.
    fn bell(&self) -> &Notify;
    /// The next frame that has come; its buffer is to be recycled.
    fn receive(&self) -> Option<Frame>;
    fn recycle(&self, buffer: Buffer);
    /// From now on the bell is to be rung for frames; true if there are some already.
    fn listen(&self) -> bool;
    /// A buffer to send; None: the bell will be rung when there is one.
    fn take_buffer(&self) -> Option<Buffer>;
    fn return_buffer(&self, buffer: Buffer);
    fn transmit(&self, buffer: Buffer, len: usize);
    fn offloads(&self) -> Offloads {
        Offloads::default()
    }
}

/// An address for a card that has none: locally administered, of one machine.
pub fn random_mac() -> [u8; 6] {
    let mut mac = [0; 6];
    random::fill(&mut mac);
    mac[0] = mac[0] & 0xfc | 2;
    mac
}

/// A driver has found a card. It gets a name and a task.
pub fn register(card: Arc<dyn Card>) {
    let port = interface::add(card);
    let mac = port.card().mac();
    let shown = mac.map(|byte| alloc::format!("{byte:02x}")).join(":");
    log::info!("{}: network card, {shown}", port.name());
    exec::spawn("net", run(port));
}

async fn run(port: Arc<Port>) {
    let mut engine = engine::Engine::new(port.clone(), Instant::now());
    loop {
        let next = engine.turn(Instant::now());
        // What is due already would not wait, and others want to run.
        if next.more || next.at.is_some_and(|at| at <= Instant::now()) {
            exec::yield_now().await;
        } else if !port.card().listen() {
            // Elapsed or rung: the next turn finds out.
            let _ = exec::timeout(next.at, port.card().bell().wait()).await;
        }
    }
}
