//! The thread that passes frames between a card and a network.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Faults;
use super::faults::{Direction, Rates};
use super::flood::{Flood, Peers};
use super::line::{Counts, Frame, Line};

/// Larger than any frame without offloads.
const LONGEST: usize = 65_536;
/// Frames that are taken from one side before the other has its turn, and that may wait before no more are taken.
const TURN: usize = 64;
const WAITING: usize = 1024;

/// What others tell the thread.
#[derive(Default)]
struct Orders {
    rates: Rates,
    flood: Option<Flood>,
    stop: bool,
    /// What the thread tells them: of what goes to the card, and of what goes to the network.
    counts: [Counts; 2],
    /// Answers to frames of machines that are not there.
    swallowed: u64,
}

pub struct Shim {
    orders: Mutex<Orders>,
    bell: UnixStream,
}

impl Shim {
    pub fn start(card: UnixDatagram, network: UnixDatagram, faults: &Faults) -> Result<Arc<Shim>> {
        let (bell, heard) = UnixStream::pair().context("no sockets for the network")?;
        for result in [card.set_nonblocking(true), network.set_nonblocking(true), heard.set_nonblocking(true)] {
            result?;
        }
        let orders = Mutex::new(Orders { rates: faults.rates, ..Orders::default() });
        let shim = Arc::new(Shim { orders, bell });
        let mut passing = Passing {
            shim: shim.clone(),
            heard,
            to_network: Way::new(Direction::ToNetwork, faults.seed),
            to_card: Way::new(Direction::ToCard, faults.seed),
            card,
            network,
            peers: Peers::default(),
        };
        thread::Builder::new().name("wire".into()).spawn(move || {
            // An error: QEMU has gone.
            let _ = passing.run();
        })?;
        Ok(shim)
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        let _ = (&self.bell).write_all(b"!");
    }

    pub fn rates(&self) -> Rates {
        self.orders().rates
    }

    pub fn set_rates(&self, rates: Rates) {
        self.orders().rates = rates;
        self.ring();
    }

    pub fn flood(&self, flood: Flood) {
        self.orders().flood = Some(flood);
        self.ring();
    }

    pub fn stop(&self) {
        self.orders().stop = true;
        self.ring();
    }

    /// What has happened so far, in `NAME=VALUE` words.
    pub fn told(&self) -> String {
        let orders = self.orders();
        let [to_card, to_network] = &orders.counts;
        let sum = |which: fn(&Counts) -> u64| which(to_card) + which(to_network);
        format!(
            "{} in={} out={} lost={} duplicated={} reordered={} corrupted={} swallowed={}",
            orders.rates,
            to_card.frames,
            to_network.frames,
            sum(|counts| counts.lost),
            sum(|counts| counts.duplicated),
            sum(|counts| counts.reordered),
            sum(|counts| counts.corrupted),
            orders.swallowed,
        )
    }
}

/// One direction: the line, and what has arrived and not been taken.
struct Way {
    line: Line,
    arrived: VecDeque<Frame>,
}

impl Way {
    fn new(direction: Direction, seed: u64) -> Way {
        Way { line: Line::new(direction, seed), arrived: VecDeque::new() }
    }

    fn has_room(&self) -> bool {
        self.line.len() + self.arrived.len() < WAITING
    }

    /// Hands over what has arrived, as far as it is taken.
    fn deliver(&mut self, to: &UnixDatagram, rates: &Rates, now: Instant) -> io::Result<()> {
        self.arrived.extend(std::iter::from_fn(|| self.line.take(rates, now)));
        while let Some(frame) = self.arrived.front() {
            match to.send(frame) {
                Ok(_) => self.arrived.pop_front(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
        }
        Ok(())
    }
}

struct Passing {
    shim: Arc<Shim>,
    heard: UnixStream,
    card: UnixDatagram,
    network: UnixDatagram,
    to_network: Way,
    to_card: Way,
    peers: Peers,
}

impl Passing {
    fn run(&mut self) -> io::Result<()> {
        loop {
            self.wait()?;
            let _ = (&self.heard).read(&mut [0; 64]);
            let (rates, flood) = {
                let mut orders = self.shim.orders();
                if orders.stop {
                    return Ok(());
                }
                (orders.rates, orders.flood.take())
            };
            let now = Instant::now();
            let mut swallowed = 0;
            for frame in taken(&self.card, &self.to_network) {
                let frame = frame?;
                if self.peers.sent_by_card(&frame) {
                    self.to_network.line.put(frame, &rates, now);
                } else {
                    swallowed += 1;
                }
            }
            for frame in taken(&self.network, &self.to_card) {
                let frame = frame?;
                self.peers.sent_by_network(&frame);
                self.to_card.line.put(frame, &rates, now);
            }
            if let Some(flood) = flood {
                self.to_card.arrived.extend(flood.frames(&self.peers));
            }
            self.to_network.deliver(&self.network, &rates, now)?;
            self.to_card.deliver(&self.card, &rates, now)?;
            let mut orders = self.shim.orders();
            orders.counts = [self.to_card.line.counts, self.to_network.line.counts];
            orders.swallowed += swallowed;
        }
    }

    /// Until there is something to do.
    fn wait(&self) -> io::Result<()> {
        let events = |from: &Way, into: &Way| {
            let mut events = PollFlags::empty();
            events.set(PollFlags::IN, from.has_room());
            events.set(PollFlags::OUT, !into.arrived.is_empty());
            events
        };
        let due = [&self.to_network, &self.to_card].into_iter().filter_map(|way| way.line.due()).min();
        let patience = due.map(|due| due.saturating_duration_since(Instant::now()));
        let timeout = patience.map(|patience| Timespec {
            tv_sec: patience.as_secs() as i64,
            tv_nsec: i64::from(patience.subsec_nanos()),
        });
        let mut files = [
            PollFd::new(&self.heard, PollFlags::IN),
            PollFd::new(&self.card, events(&self.to_network, &self.to_card)),
            PollFd::new(&self.network, events(&self.to_card, &self.to_network)),
        ];
        match poll(&mut files, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if files.iter().any(|file| file.revents().intersects(PollFlags::HUP | PollFlags::ERR)) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }
}

/// What a side has sent, as far as there is room for it.
fn taken(from: &UnixDatagram, way: &Way) -> impl Iterator<Item = io::Result<Frame>> + use<> {
    let count = if way.has_room() { TURN } else { 0 };
    let mut frames = Vec::new();
    let mut buffer = [0; LONGEST];
    while frames.len() < count {
        match from.recv(&mut buffer) {
            Ok(len) => frames.push(Ok(buffer[..len].to_vec())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => {
                frames.push(Err(error));
                break;
            }
        }
    }
    frames.into_iter()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn wire(faults: &str) -> (Arc<Shim>, UnixDatagram, UnixDatagram) {
        let pair = || UnixDatagram::pair().unwrap();
        let ((card, our_card), (network, our_network)) = (pair(), pair());
        for end in [&card, &network] {
            end.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        }
        (Shim::start(our_card, our_network, &faults.parse().unwrap()).unwrap(), card, network)
    }

    #[test]
    fn frames_go_both_ways_also_when_one_side_sends_more_than_fits() {
        let (shim, card, network) = wire("seed=1");
        let sender = thread::spawn({
            let card = card.try_clone().unwrap();
            move || (0..5000_u32).for_each(|number| assert_eq!(card.send(&number.to_be_bytes()).unwrap(), 4))
        });
        let mut buffer = [0; 100];
        for number in 0..5000_u32 {
            let len = network.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..len], number.to_be_bytes());
        }
        sender.join().unwrap();
        network.send(b"answer").unwrap();
        let len = card.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"answer");
        shim.stop();
    }

    #[test]
    fn rates_are_changed_while_it_runs_and_what_happens_is_told() {
        let (shim, card, network) = wire("loss=100");
        card.send(b"lost").unwrap();
        while !shim.told().contains("out=1 lost=1") {
            thread::sleep(Duration::from_millis(1));
        }
        shim.set_rates(Rates { duplicate: 100.0, ..Rates::default() });
        card.send(b"twice").unwrap();
        for _ in 0..2 {
            let mut buffer = [0; 10];
            assert_eq!(network.recv(&mut buffer).unwrap(), 5);
        }
        shim.stop();
    }
}
