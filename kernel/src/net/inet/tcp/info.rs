//! TCP_INFO: what is known of a connection.

use alloc::vec::Vec;
use core::net::IpAddr;
use core::sync::atomic::Ordering;

use zerocopy::{Immutable, IntoBytes};

use super::{Phase, TcpSocket};
use crate::net::inet::ip::packet::{HEADER4, HEADER6, LONGEST};
use crate::net::{card, interface};

/// TCP_MSS_DEFAULT of Linux: of what is not connected.
pub(super) const SEGMENT: u32 = 536;
/// Bytes of the header, and of the time stamps that Linux sends along.
const HEADER: usize = 20;
const STAMPS: u32 = 12;
const HALF_WINDOW: u32 = 32_768;
/// TCP_INIT_CWND, TCP_INFINITE_SSTHRESH and TCP_FASTRETRANS_THRESH of Linux.
const WINDOW: u32 = 10;
const NO_THRESHOLD: u32 = 0x7fff_ffff;
const REORDERING: u32 = 3;

/// `struct tcp_info` of Linux 6.1. What nothing is known of is 0: within the machine there are no segments, so none is lost and none
/// takes time.
#[repr(C)]
#[derive(Clone, Copy, Default, IntoBytes, Immutable)]
struct Info {
    state: u8,
    ca_state: u8,
    retransmits: u8,
    probes: u8,
    backoff: u8,
    options: u8,
    scales: u8,
    flags: u8,
    rto: u32,
    ato: u32,
    snd_mss: u32,
    rcv_mss: u32,
    /// Of a listener: connections that wait, and how many may.
    unacked: u32,
    sacked: u32,
    lost: u32,
    retrans: u32,
    fackets: u32,
    /// Milliseconds since the last bytes and acknowledgements were sent and received.
    last: [u32; 4],
    pmtu: u32,
    rcv_ssthresh: u32,
    rtt: u32,
    rttvar: u32,
    snd_ssthresh: u32,
    snd_cwnd: u32,
    advmss: u32,
    reordering: u32,
    rcv_rtt: u32,
    rcv_space: u32,
    total_retrans: u32,
    pacing_rate: u64,
    max_pacing_rate: u64,
    bytes_acked: u64,
    bytes_received: u64,
    segs_out: u32,
    segs_in: u32,
    notsent_bytes: u32,
    min_rtt: u32,
    data_segs_in: u32,
    data_segs_out: u32,
    delivery_rate: u64,
    busy_time: u64,
    rwnd_limited: u64,
    sndbuf_limited: u64,
    delivered: u32,
    delivered_ce: u32,
    bytes_sent: u64,
    bytes_retrans: u64,
    dsack_dups: u32,
    reord_seen: u32,
    rcv_ooopack: u32,
    snd_wnd: u32,
    rcv_wnd: u32,
    rehash: u32,
}

const _: () = assert!(size_of::<Info>() == 240);

/// How long a packet to `remote` can be, and how much of it is not the program's.
fn packet_to(remote: IpAddr) -> (u32, u32) {
    let mtu = interface::mtu_for(remote).unwrap_or(card::MTU);
    let (mtu, header) = if remote.is_ipv4() { (mtu.min(LONGEST), HEADER4) } else { (mtu, HEADER6) };
    (mtu as u32, (header + HEADER) as u32)
}

/// What segments to `remote` can hold if the ends want them to have these sizes, 0 any: of who connects, and of who is connected to.
/// Within the machine it is what Linux says there, which sends no more than half of the first window at a time.
pub(super) fn agreed_segments(remote: IpAddr, wanted: [i32; 2]) -> [u32; 2] {
    let (mtu, header) = packet_to(remote);
    let wanted = wanted.into_iter().filter(|size| *size > 0).map(|size| size as u32);
    let agreed = wanted.fold(mtu - header, u32::min);
    if mtu == card::MTU as u32 {
        return [agreed; 2];
    }
    let largest = mtu - header - STAMPS;
    [largest / 2, HALF_WINDOW].map(|half| half.min(agreed - STAMPS))
}

impl TcpSocket {
    /// TCP_MAXSEG: what was set, as long as there is no connection.
    pub(super) fn segment(&self) -> i32 {
        let (state, wanted) = (self.state.lock(), self.tcp.lock().segment);
        match state.phase {
            Phase::Closed | Phase::Listening if wanted != 0 => wanted,
            _ => state.segment as i32,
        }
    }

    pub(super) fn info(&self) -> Vec<u8> {
        let segment = self.segment() as u32;
        let (unsent, in_stack) = self.on_its_way();
        let sent = self.sent.load(Ordering::Relaxed);
        let state = self.state.lock();
        let mut info = Info {
            state: state.number(),
            snd_mss: segment,
            snd_ssthresh: NO_THRESHOLD,
            snd_cwnd: WINDOW,
            reordering: REORDERING,
            bytes_received: state.received,
            bytes_sent: sent.saturating_sub(unsent as u64),
            bytes_acked: sent.saturating_sub((unsent + in_stack) as u64),
            notsent_bytes: unsent as u32,
            unacked: in_stack.div_ceil(segment.max(1) as usize) as u32,
            ..Info::default()
        };
        if state.phase == Phase::Listening {
            (info.unacked, info.sacked) = (state.waiting.len() as u32, state.backlog as u32);
        }
        let remote = state.remote.filter(|_| state.phase == Phase::Open);
        drop(state);
        if let Some(remote) = remote {
            let (mtu, header) = packet_to(remote.ip);
            let stamps = if mtu == card::MTU as u32 { 0 } else { STAMPS };
            (info.pmtu, info.advmss, info.rcv_mss) = (mtu, mtu - header - stamps, SEGMENT);
            info.rcv_space = self.common.receive_buffer.load(Ordering::Relaxed);
        }
        info.as_bytes().to_vec()
    }
}
