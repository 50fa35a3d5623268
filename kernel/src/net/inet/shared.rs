//! The options of a socket for datagrams or packets, as each of these needs them.

use core::net::IpAddr;
use core::sync::atomic::{AtomicU32, Ordering};

use super::ip::packet::{HEADER4, HEADER6, LONGEST};
use super::options::IpOptions;
use super::told::Told;
use crate::errno::Result;
use crate::net::interface;
use crate::net::socket::Common;
use crate::sync::{SpinGuard, SpinLock};

/// The options of a socket for datagrams or packets: what each of these needs is read without the lock.
pub struct Shared {
    options: SpinLock<IpOptions>,
    told: AtomicU32,
    /// Hops and class of IPv4 and IPv6, a byte each.
    header: AtomicU32,
}

impl Shared {
    pub fn new(options: IpOptions) -> Self {
        let shared = Shared { options: SpinLock::new(options), told: AtomicU32::new(0), header: AtomicU32::new(0) };
        shared.publish(&options);
        shared
    }

    fn publish(&self, options: &IpOptions) {
        self.told.store(options.told.0, Ordering::Relaxed);
        let header = [options.hops(true), options.class(true), options.hops(false), options.class(false)];
        self.header.store(u32::from_ne_bytes(header), Ordering::Relaxed);
    }

    pub fn lock(&self) -> SpinGuard<'_, IpOptions> {
        self.options.lock()
    }

    pub fn told(&self) -> Told {
        Told(self.told.load(Ordering::Relaxed))
    }

    /// Hops and class of what is sent.
    pub fn header(&self, v4: bool) -> (u8, u8) {
        let [hops, class, hops6, class6] = self.header.load(Ordering::Relaxed).to_ne_bytes();
        if v4 { (hops, class) } else { (hops6, class6) }
    }

    pub fn set(&self, common: &Common, level: u32, option: u32, value: &[u8], bound: bool) -> Result<()> {
        let mut options = self.options.lock();
        options.set(common, level, option, value, bound)?;
        self.publish(&options);
        Ok(())
    }

    /// Whether so many bytes behind the header fit into a packet to `to`, which perhaps must not be cut into fragments. If not, how long
    /// it may be (__ip_append_data and __ip6_append_data of Linux).
    pub fn excess(&self, to: IpAddr, len: usize) -> Result<Option<u32>> {
        Ok(self.excess_within(interface::mtu_for(to)?, to, len))
    }

    /// The same of a way that takes packets of up to `mtu` bytes in one piece.
    pub fn excess_within(&self, mtu: usize, to: IpAddr, len: usize) -> Option<u32> {
        let (v4, options) = (to.is_ipv4(), *self.lock());
        let (header, longest) = if v4 { (HEADER4, LONGEST) } else { (HEADER6, HEADER6 + LONGEST) };
        let most = if options.fragments(v4) { longest } else { mtu.min(longest) };
        let told = if v4 && options.heeds_size(v4) { mtu.min(longest) } else { mtu };
        (header + len > most).then_some(told as u32)
    }
}
