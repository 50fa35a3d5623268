//! UDP sockets: udp(7).
//!
//! A datagram goes straight into the queue of its receiver. If that has no room it is lost, and nobody is told, as with any
//! network; if there is no receiver, a connected sender is told by its next call. What goes to other machines and comes from
//! them: [`remote`].

mod groups;
mod lite;
mod ops;
mod packet;
mod remote;
mod send;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::net::IpAddr;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::endpoint::{self, AF_UNSPEC};
use super::failures::ErrorQueue;
use super::groups::Groups;
use super::options::IpOptions;
use super::ports::{Holding, Ports};
use super::shared::Shared;
use super::told::{About, Noted};
use super::{Endpoint, IPPROTO_UDP, IPPROTO_UDPLITE, Part, Row, check_bindable, claim, events, told_of};
use crate::errno::{Errno, Result};
use crate::exec::WaitQueue;
use crate::fs::{Events, TryError, sigio};
use crate::mm::IoBuf;
use crate::net::packet::copy_out;
use crate::net::socket::{Common, Outgoing, Receive, Received, Type};
use crate::net::{address, interface};
use crate::process::Thread;
use crate::sync::SpinLock;
use crate::time;

use self::lite::{Coverage, ports_of};
use self::send::Cork;

pub use groups::deliver_to_all;
pub use lite::arrive as lite_arrives;
pub use remote::{arrive, failed};

/// Bytes of the largest datagram: what a length of 16 bits leaves beside the headers (those of IPv6 are not counted).
const MAX: usize = 65_507;
const MAX6: usize = 65_527;
/// What a datagram takes up in the receive buffer besides its bytes, about as on Linux.
const OVERHEAD: usize = 768;

const READABLE: Events = Events::IN.union(Events::RDNORM);
const WRITABLE: Events = Events::OUT.union(Events::WRNORM).union(Events::WRBAND);

/// Of UDP.
static PORTS: Ports<UdpSocket> = Ports::new();

pub struct UdpSocket {
    this: Weak<UdpSocket>,
    common: Common,
    state: SpinLock<State>,
    queue: WaitQueue,
    ip: Shared,
    failures: ErrorQueue,
    groups: SpinLock<Groups>,
    coverage: Coverage,
    /// There is something in [`State::cork`]: changed under the lock, read without it.
    is_corked: AtomicBool,
    /// What the card has not sent yet takes up this much.
    on_its_way: AtomicUsize,
    /// Its last descriptor is closed.
    closed: AtomicBool,
}

struct State {
    /// Port 0: none yet.
    local: Endpoint,
    /// The program chose the address, the port.
    address_given: bool,
    port_given: bool,
    remote: Option<Endpoint>,
    inbox: VecDeque<Datagram>,
    /// What these take up.
    charge: usize,
    receive_shut: bool,
    send_shut: bool,
    /// What calls with MSG_MORE have left.
    cork: Option<Box<Cork>>,
}

struct Datagram {
    from: Endpoint,
    about: About,
    /// Of UDP-Lite: how much of it its checksum covers (0: all).
    covered: Option<u16>,
    data: Box<[u8]>,
}

impl Datagram {
    /// What came through the interface `index`, with a header of these hops and this class.
    fn new(from: Endpoint, to: Endpoint, index: i32, header: (u8, u8), covered: Option<u16>, data: Box<[u8]>) -> Self {
        let (hops, class) = header;
        Datagram { from, about: About { to, index, hops, class, noted: Noted::Nothing, at: 0 }, covered, data }
    }
}

/// The sockets of a protocol and family that have ports. Like Linux it shows connected ones as established, others as closed.
pub fn rows(protocol: u8, family: u16) -> Vec<Row> {
    let mut rows = Vec::new();
    for row in
        ports_of(protocol == IPPROTO_UDPLITE).list().into_iter().filter_map(row).filter(|row| row.family == family)
    {
        if rows.try_reserve(1).is_ok() {
            rows.push(row);
        }
    }
    rows
}

/// Some of those of all families: see [`Ports::part`].
pub fn part(shard: usize, place: usize, most: usize) -> Part {
    part_of(false, shard, place, most)
}

/// The same of UDP-Lite.
pub fn part_of_lite(shard: usize, place: usize, most: usize) -> Part {
    part_of(true, shard, place, most)
}

fn part_of(lite: bool, shard: usize, place: usize, most: usize) -> Part {
    told_of(ports_of(lite).part(shard, place, most), row)
}

fn row((socket, _): Holding<UdpSocket>) -> Option<Row> {
    let socket = socket?;
    let only_v6 = socket.only_v6();
    let state = socket.state.lock();
    Some(Row {
        family: socket.common.family,
        local: state.local,
        remote: state.remote.unwrap_or(Endpoint::any(socket.common.family)),
        state: if state.remote.is_some() { 1 } else { 7 },
        sending: 0,
        receiving: state.charge,
        backlog: 0,
        shut: u8::from(state.receive_shut) | u8::from(state.send_shut) << 1,
        only_v6,
        uid: socket.common.uid.load(Ordering::Relaxed),
        inode: socket.common.inode.load(Ordering::Relaxed),
    })
}

impl UdpSocket {
    pub fn new(family: u16) -> Arc<UdpSocket> {
        UdpSocket::with(family, IPPROTO_UDP)
    }

    pub fn with(family: u16, protocol: u8) -> Arc<UdpSocket> {
        Arc::new_cyclic(|this| UdpSocket {
            this: this.clone(),
            common: Common::new(family, Type::Datagram, protocol),
            state: SpinLock::new(State {
                local: Endpoint::any(family),
                address_given: false,
                port_given: false,
                remote: None,
                inbox: VecDeque::new(),
                charge: 0,
                receive_shut: false,
                send_shut: false,
                cork: None,
            }),
            queue: WaitQueue::new(),
            ip: Shared::new(IpOptions::new()),
            failures: ErrorQueue::new(),
            groups: SpinLock::new(Groups::new()),
            coverage: Coverage::new(),
            on_its_way: AtomicUsize::new(0),
            is_corked: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        })
    }

    fn only_v6(&self) -> bool {
        self.ip.lock().only_v6
    }

    fn bind_to(&self, t: &Thread, address: &[u8]) -> Result<()> {
        let local = endpoint::parse_own(self.common.family, address)?;
        if local.ip.is_ipv4() && self.only_v6() {
            return Err(Errno::EINVAL);
        }
        check_bindable(t, local)?;
        self.bind_as(t.creds().euid, local)
    }

    pub(in crate::net) fn bind_as(&self, user: u32, local: Endpoint) -> Result<()> {
        let mut state = self.state.lock();
        if state.local.port != 0 {
            return Err(Errno::EINVAL);
        }
        let claim = claim(&self.common, local, self.only_v6(), user);
        let port = self.ports().claim_given(&self.this, claim)?;
        state.local = Endpoint { ip: local.ip, port };
        state.address_given = !local.is_any();
        state.port_given = local.port != 0;
        Ok(())
    }

    /// A socket that sends has a port. A port that nobody chose is shared with nobody.
    fn take_port(&self, state: &mut State) -> Result<()> {
        if state.local.port == 0 {
            let mut claim = claim(&self.common, state.local, self.only_v6(), 0);
            claim.shared_by = None;
            state.local.port = self.ports().claim_any(&self.this, claim).map_err(|_| Errno::EAGAIN)?;
        }
        Ok(())
    }

    /// Where a datagram for `remote` comes from; why it cannot be sent there.
    fn source_for(&self, remote: Endpoint, device: i32) -> Result<IpAddr> {
        if remote.ip.is_ipv4() && self.only_v6() {
            return Err(Errno::ENETUNREACH);
        }
        interface::source_through(remote.ip, device)
    }

    fn set_destination(&self, address: &[u8]) -> Result<()> {
        if address::family(address)? == AF_UNSPEC {
            self.disconnect();
            return Ok(());
        }
        self.connect_as(endpoint::parse_peer(self.common.family, address, true)?)
    }

    pub(in crate::net) fn connect_as(&self, remote: Endpoint) -> Result<()> {
        let mut state = self.state.lock();
        // First, as on Linux: it stays if there is no way.
        self.take_port(&mut state)?;
        let source = match remote.ip.is_multicast() {
            true => self.way_to_group(&state, remote.ip, &Outgoing::plain())?.source,
            false => self.source_for(remote, self.common.device())?,
        };
        self.common.check_broadcast(remote.ip)?;
        let ip = if state.local.is_any() { source } else { state.local.ip };
        let leads = remote.ip.is_multicast() || interface::leads(ip, remote.ip);
        if ip.is_ipv4() != remote.ip.is_ipv4() || !leads {
            return Err(Errno::EINVAL);
        }
        // Several may be connected to the same peer.
        self.ports().change(self, state.local.port, false, |claim| {
            claim.local.ip = ip;
            claim.remote = Some(remote);
        })?;
        state.local.ip = ip;
        state.remote = Some(remote);
        Ok(())
    }

    /// connect(2) to AF_UNSPEC: an address or port that the program did not choose goes, too.
    fn disconnect(&self) {
        let mut state = self.state.lock();
        let before = (state.local, state.remote.take());
        if !state.address_given {
            state.local.ip = Endpoint::any(self.common.family).ip;
        }
        let local = state.local;
        if !state.port_given && local.port != 0 {
            state.local.port = 0;
            self.ports().release(self, before.0.port, None);
        } else {
            let _ =
                self.ports().change(self, before.0.port, false, |claim| (claim.local, claim.remote) = (local, None));
        }
    }

    fn fail(&self, errno: Errno) {
        self.common.set_error(errno);
        self.queue.wake(usize::MAX, sigio::QUIET | sigio::ERR);
    }

    /// No more datagrams are taken.
    fn is_crowded(&self) -> bool {
        let limit = self.common.receive_buffer.load(Ordering::Relaxed) as usize;
        self.state.lock().charge > limit || self.closed.load(Ordering::Acquire)
    }

    fn deliver(&self, mut datagram: Datagram) {
        if datagram.covered.is_some_and(|covered| !self.trusts(covered, datagram.data.len())) {
            return self.lose(&datagram.from, false);
        }
        if self.ip.told().wants_interface() {
            datagram.about.noted = Noted::All;
        }
        if self.common.times.load(Ordering::Relaxed) != 0 {
            datagram.about.at = time::now_realtime().to_nanos();
        }
        if self.common.filter.is_there() && !self.filters_in(&mut datagram) {
            return self.lose(&datagram.from, false);
        }
        let mut state = self.state.lock();
        let limit = self.common.receive_buffer.load(Ordering::Relaxed) as usize;
        // One that fits at all may go beyond the limit, but only one.
        let refused = state.charge > limit || self.closed.load(Ordering::Acquire);
        if refused || state.inbox.try_reserve(1).is_err() {
            drop(state);
            return self.lose(&datagram.from, refused);
        }
        state.charge += datagram.data.len() + OVERHEAD;
        state.inbox.push_back(datagram);
        drop(state);
        if !self.queue.is_empty() {
            self.queue.wake(usize::MAX, READABLE.bits() | sigio::IN);
        }
    }

    /// One that has come from there is lost.
    #[cold]
    fn lose(&self, from: &Endpoint, lacks_room: bool) {
        let note = |what| events::datagram(from.ip.is_ipv4(), self.is_lite(), what);
        note(events::Datagram::Lost);
        if lacks_room {
            note(events::Datagram::NoRoom);
        }
    }

    fn receive_datagram(&self, buf: &mut IoBuf<'_>, how: Receive) -> Result<Received, TryError> {
        let mut state = self.state.lock();
        if let Some(errno) = self.common.take_error() {
            return Err(errno.into());
        }
        let Some(datagram) = state.inbox.front() else {
            // A datagram socket that is shut down ends waiting only.
            let end = state.receive_shut && !how.nonblock;
            return if end { Ok(Received::default()) } else { Err(TryError::WouldBlock) };
        };
        let len = copy_out(buf, &datagram.data)?;
        let from = Some(datagram.from.to_address_through(self.common.family, datagram.about.index));
        let extras = self.ip.told().extras(&self.common, &datagram.about);
        let received = Received { len, full: datagram.data.len(), from, extras, ..Received::default() };
        if how.peek {
            return Ok(received);
        }
        events::datagram(datagram.from.ip.is_ipv4(), self.is_lite(), events::Datagram::Received);
        let datagram = state.inbox.pop_front();
        state.charge -= received.full + OVERHEAD;
        drop(state);
        drop(datagram);
        Ok(received)
    }

    pub(in crate::net) fn set_ip_option(&self, level: u32, option: u32, value: &[u8]) -> Result<()> {
        if let Some(answer) = self.groups.lock().set(&self.common, level, option, value) {
            return answer;
        }
        if let Some(answer) = self.set_coverage(level, option, value) {
            return answer;
        }
        let bound = self.state.lock().local.port != 0;
        self.ip.set(&self.common, level, option, value, bound)?;
        self.failures.keep_if(self.ip.told(), level, option);
        Ok(())
    }

    fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut state = self.state.lock();
        let (inbox, claimed) = (core::mem::take(&mut state.inbox), (state.local, state.remote));
        let cork = state.cork.take();
        state.charge = 0;
        drop(state);
        drop((inbox, cork));
        self.failures.clear();
        self.groups.lock().leave_all();
        if claimed.0.port != 0 {
            self.ports().release(self, claimed.0.port, None);
        }
    }
}

impl Drop for UdpSocket {
    /// For a socket that never got a descriptor.
    fn drop(&mut self) {
        self.close();
    }
}
