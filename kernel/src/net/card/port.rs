//! What sockets and programs see of a card.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::datagram::{Outgoing, OutgoingFrame, QUEUE};
use super::neighbours::Neighbours;
use super::{Card, Neighbour};
use crate::errno::{Errno, Result};
use crate::exec::{Event, Instant};
use crate::net::inet::tcp::TcpSocket;
use crate::net::netlink;
use crate::sync::SpinLock;

/// An address and how much of it names the network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cidr {
    pub ip: IpAddr,
    pub prefix: u8,
}

impl Cidr {
    pub fn contains(&self, ip: IpAddr) -> bool {
        let same = |a: u128, b: u128, width: u32| {
            let host = width.saturating_sub(self.prefix.into());
            (a ^ b).checked_shr(host).unwrap_or(0) == 0
        };
        match (self.ip, ip) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
            _ => false,
        }
    }

    /// Of an IPv4 address.
    pub fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0))
    }

    /// Its first address.
    pub fn network(&self) -> IpAddr {
        match self.ip {
            IpAddr::V4(ip) => IpAddr::V4(ip & self.mask()),
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix.min(128))).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask))
            }
        }
    }

    pub fn broadcast(&self) -> Option<Ipv4Addr> {
        match self.ip {
            IpAddr::V4(ip) if self.prefix < 31 => Some(ip | !self.mask()),
            _ => None,
        }
    }
}

/// The group in which neighbours look for who has this address.
pub fn solicited(own: Ipv6Addr) -> Ipv6Addr {
    const PREFIX: u128 = 0xff02_0000_0000_0000_0000_0001_ff00_0000;
    Ipv6Addr::from_bits(PREFIX | own.to_bits() & 0xff_ffff)
}

/// A route that a program has set: a network, and the neighbour through which packets for it go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Via {
    pub to: Cidr,
    pub gateway: IpAddr,
    /// RTPROT_*: who says so.
    pub protocol: u8,
    /// 0: none.
    pub metric: u32,
}

/// How the card is configured.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Settings {
    pub addresses: Vec<Cidr>,
    pub gateway: Option<Ipv4Addr>,
    pub gateway6: Option<Ipv6Addr>,
    pub servers: Vec<Ipv4Addr>,
    /// The DHCP server that said so.
    pub told_by: Option<Ipv4Addr>,
    /// They go before the gateways.
    pub routes: Vec<Via>,
}

impl Settings {
    pub fn is_own(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.ip == ip)
    }

    pub fn is_broadcast(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => ip.is_broadcast() || self.addresses.iter().any(|own| own.broadcast() == Some(ip)),
            IpAddr::V6(_) => false,
        }
    }

    /// Are packets for it for this machine?
    pub fn is_addressed(&self, ip: IpAddr) -> bool {
        self.is_own(ip) || self.is_broadcast(ip)
    }

    /// Is it the group of those whose IPv6 address ends like one of its own, which neighbours ask (RFC 4291, 2.7.1)?
    pub fn is_solicited(&self, group: IpAddr) -> bool {
        let IpAddr::V6(group) = group else { return false };
        self.addresses.iter().any(|own| matches!(own.ip, IpAddr::V6(own) if solicited(own) == group))
    }

    /// Is it in a network of the card?
    pub fn is_near(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.contains(ip))
    }

    /// To which neighbour packets for `ip` go.
    pub fn next_hop(&self, ip: IpAddr) -> Option<IpAddr> {
        if self.is_near(ip) || self.is_broadcast(ip) || ip.is_multicast() {
            return Some(ip);
        }
        let routes = self.routes.iter().filter(|route| route.to.contains(ip));
        if let Some(route) = routes.max_by_key(|route| route.to.prefix) {
            return Some(route.gateway);
        }
        match ip {
            IpAddr::V4(_) => self.gateway.map(IpAddr::V4),
            IpAddr::V6(_) => self.gateway6.map(IpAddr::V6),
        }
    }

    /// The gateway that most packets of IPv4 go through.
    pub fn main_gateway(&self) -> Option<Ipv4Addr> {
        let main = self.routes.iter().find(|route| route.to.prefix == 0 && route.to.ip.is_ipv4());
        match main.map(|route| route.gateway) {
            Some(IpAddr::V4(gateway)) => Some(gateway),
            _ => self.gateway,
        }
    }

    /// Is there a way to `ip` besides that to everywhere?
    pub fn knows_way(&self, ip: IpAddr) -> bool {
        self.routes.iter().any(|route| route.to.prefix != 0 && route.to.contains(ip))
    }

    /// An address is gone: so are the ways through neighbours that were reached from it.
    pub fn forget_lost(&mut self) {
        let addresses = core::mem::take(&mut self.addresses);
        let near = |ip: IpAddr| addresses.iter().any(|own| own.contains(ip));
        self.routes.retain(|route| near(route.gateway));
        self.gateway = self.gateway.filter(|gateway| near((*gateway).into()));
        self.gateway6 = self.gateway6.filter(|gateway| near((*gateway).into()));
        self.addresses = addresses;
    }

    /// Where packets for `ip` come from (for IPv6 the rules of RFC 6724 that matter with one interface). None: no route.
    pub fn source_for(&self, ip: IpAddr) -> Option<IpAddr> {
        self.next_hop(ip)?;
        // A group of this network or of this machine alone, as a unicast address of the network.
        let is_near_group = |ip: Ipv6Addr| ip.is_multicast() && ip.segments()[0] & 0xf <= 2;
        let is_local = |ip: IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local() || is_near_group(ip));
        let wanted = |own: &&Cidr| own.ip.is_ipv4() == ip.is_ipv4() && is_local(own.ip) == is_local(ip);
        let mut candidates = self.addresses.iter().filter(wanted);
        let first = candidates.clone().next()?;
        Some(candidates.find(|own| own.contains(ip)).unwrap_or(first).ip)
    }
}

/// Of /proc/net/dev.
#[derive(Default)]
pub struct Counters {
    pub received: AtomicU64,
    pub received_bytes: AtomicU64,
    pub sent: AtomicU64,
    pub sent_bytes: AtomicU64,
    pub sent_dropped: AtomicU64,
}

impl Counters {
    pub fn note_sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.sent.fetch_add(1, Ordering::Relaxed);
    }
}

/// IFF_UP as a program wants it.
#[derive(Clone, Copy)]
pub struct SetUp {
    pub up: bool,
    /// [`Port::downs`] at that moment.
    pub downs: u32,
}

/// What the task is asked for.
#[derive(Default)]
pub struct Mail {
    pub set_up: Option<SetUp>,
    /// A program has changed the settings.
    pub adopt: bool,
    /// Sockets have joined groups, or left them.
    pub groups: bool,
    /// Stand-ins whose peers want a connection.
    pub connect: VecDeque<Arc<TcpSocket>>,
    /// Connections whose sockets have something to do for it.
    pub rung: VecDeque<u64>,
    pub datagrams: VecDeque<Outgoing>,
    pub frames: VecDeque<OutgoingFrame>,
}

pub struct Port {
    name: String,
    index: i32,
    card: Arc<dyn Card>,
    mail: SpinLock<Mail>,
    settings: SpinLock<Settings>,
    neighbours: SpinLock<Neighbours>,
    up: AtomicBool,
    /// How often it was taken down. What the task has found out before is not for the settings that came after.
    downs: AtomicU32,
    /// The first attempt to get an address is over.
    pub settled: Event,
    pub counters: Counters,
    /// How many want to see frames for other machines, too.
    promiscuous: AtomicU32,
}

impl Port {
    pub fn new(name: String, index: i32, card: Arc<dyn Card>) -> Arc<Self> {
        Arc::new(Port {
            name,
            index,
            card,
            mail: SpinLock::new(Mail::default()),
            settings: SpinLock::new(Settings::default()),
            neighbours: SpinLock::new(Neighbours::default()),
            up: AtomicBool::new(false),
            downs: AtomicU32::new(0),
            settled: Event::new(),
            counters: Counters::default(),
            promiscuous: AtomicU32::new(0),
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn index(&self) -> i32 {
        self.index
    }

    pub fn card(&self) -> &dyn Card {
        &*self.card
    }

    /// IFF_UP.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    pub fn note_up(&self, up: bool) {
        self.up.store(up, Ordering::Relaxed);
    }

    /// How often it was taken down: asked under the lock of the settings.
    pub fn downs(&self) -> u32 {
        self.downs.load(Ordering::Relaxed)
    }

    /// Does somebody want to see frames for other machines, too?
    pub fn is_promiscuous(&self) -> bool {
        self.promiscuous.load(Ordering::Relaxed) != 0
    }

    /// One more wants to, or one less.
    pub fn be_promiscuous(&self, on: bool) {
        if on {
            self.promiscuous.fetch_add(1, Ordering::Relaxed);
        } else {
            self.promiscuous.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub fn settings(&self) -> Settings {
        self.settings.lock().clone()
    }

    /// Looks at the settings without a copy.
    pub fn with_settings<T>(&self, look: impl FnOnce(&Settings) -> T) -> T {
        look(&self.settings.lock())
    }

    pub fn is_broadcast(&self, ip: IpAddr) -> bool {
        self.settings.lock().is_broadcast(ip)
    }

    /// IFF_UP as a program wants it: the task follows. A card that is not used has no addresses, but for those it is given then.
    pub fn set_up(&self, up: bool) {
        let mut settings = self.settings.lock();
        // What is down may have been given addresses since.
        if !up && !self.is_up() {
            return;
        }
        self.note_up(up);
        let mut before = Settings::default();
        if !up {
            self.downs.fetch_add(1, Ordering::Relaxed);
            core::mem::swap(&mut before, &mut *settings);
        }
        // Under the lock, so that flag and mail say the same, whoever else is at it.
        self.mail.lock().set_up = Some(SetUp { up, downs: self.downs() });
        drop(settings);
        self.card.bell().notify();
        if before != Settings::default() {
            netlink::tell_settings(self, &before, &Settings::default());
        }
    }

    /// Changes the settings, and tells those who listen to such changes. With an error nothing changes.
    pub fn change(&self, change: &mut dyn FnMut(&mut Settings) -> Result<()>) -> Result<Settings> {
        let mut settings = self.settings.lock();
        let before = settings.clone();
        let mut after = settings.clone();
        change(&mut after)?;
        settings.clone_from(&after);
        drop(settings);
        if before != after {
            netlink::tell_settings(self, &before, &after);
        }
        Ok(after)
    }

    /// The same by a program: the task is to follow.
    pub fn change_from_outside(&self, change: &mut dyn FnMut(&mut Settings) -> Result<()>) -> Result<()> {
        self.change(change)?;
        self.post(|mail| {
            mail.adopt = true;
            Ok(())
        })
    }

    /// The first socket has joined a group here, or the last has left it: the task is to tell the network.
    pub fn groups_changed(&self) {
        let _ = self.post(|mail| {
            mail.groups = true;
            Ok(())
        });
    }

    pub fn neighbours(&self, now: Instant) -> Vec<Neighbour> {
        self.neighbours.lock().list(now)
    }

    pub fn with_neighbours<T>(&self, look: impl FnOnce(&mut Neighbours) -> T) -> T {
        look(&mut self.neighbours.lock())
    }

    /// Leaves something for the task and wakes it.
    fn post(&self, put: impl FnOnce(&mut Mail) -> Result<()>) -> Result<()> {
        put(&mut self.mail.lock())?;
        self.card.bell().notify();
        Ok(())
    }

    /// A connection for the peer of this stand-in.
    pub fn connect(&self, stand_in: Arc<TcpSocket>) -> Result<()> {
        self.post(|mail| {
            mail.connect.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            mail.connect.push_back(stand_in);
            Ok(())
        })
    }

    /// What finds the queue full is lost; nobody is told, as on Linux.
    pub fn send(&self, datagram: Outgoing) -> Result<()> {
        self.queue(datagram, |mail| &mut mail.datagrams)
    }

    /// The same for a frame.
    pub fn send_frame(&self, frame: OutgoingFrame) -> Result<()> {
        self.queue(frame, |mail| &mut mail.frames)
    }

    fn queue<T>(&self, what: T, queue: impl FnOnce(&mut Mail) -> &mut VecDeque<T>) -> Result<()> {
        let mut lost = None;
        let posted = self.post(|mail| {
            let queue = queue(mail);
            if queue.len() >= QUEUE {
                // Under the lock nothing of a socket goes.
                lost = Some(what);
                return Ok(());
            }
            if queue.try_reserve(1).is_err() {
                lost = Some(what);
                return Err(Errno::ENOBUFS);
            }
            queue.push_back(what);
            Ok(())
        });
        drop(lost);
        posted
    }

    #[cfg(test)]
    pub fn has_mail(&self) -> bool {
        let mail = self.mail.lock();
        !(mail.set_up.is_none()
            && !mail.adopt
            && !mail.groups
            && mail.connect.is_empty()
            && mail.rung.is_empty()
            && mail.datagrams.is_empty()
            && mail.frames.is_empty())
    }

    pub fn take_mail(&self) -> Mail {
        core::mem::take(&mut self.mail.lock())
    }
}

/// What wakes the task for a connection: the waker in the queue of a stand-in.
pub struct Ring {
    pub port: Arc<Port>,
    pub id: u64,
    /// It is in the mail already.
    pub rung: AtomicBool,
}

impl Wake for Ring {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            let _ = self.port.post(|mail| {
                mail.rung.push_back(self.id);
                Ok(())
            });
        }
    }
}
