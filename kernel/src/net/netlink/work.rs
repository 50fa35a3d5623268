//! What a socket has asked for: requests one after the other, and a list that is made part by part.
//!
//! Both may take long, because tables are long and most of what is in them may not be wanted. So each is done in steps: who sends or
//! receives goes on with it ([`NetlinkSocket::work`]), lets others run, and comes again.

use alloc::boxed::Box;
use core::sync::atomic::Ordering;

use linux_raw_sys::netlink as raw;

use super::message::{self, Header, LONGEST, Request, Writer};
use super::{Datagram, MOST_PART, NetlinkSocket, PART, ROUTE, State, diag, route};
use crate::errno::{Errno, Result};
use crate::exec;
use crate::mm::frames;

/// What becomes of a request.
pub(super) enum Answer {
    /// It is done.
    Done,
    /// One message.
    One(Writer),
    /// Many.
    Many(What),
    /// It takes longer: it is to be asked again.
    Later,
}

/// Of what there is a list.
pub(super) enum What {
    Route(route::List),
    Sockets(diag::List),
}

/// A list on its way to a program.
pub(super) struct Dump {
    what: What,
    seq: u32,
    port: u32,
    /// Where the next part begins: for each list its own.
    at: (usize, usize),
    /// A part that is begun.
    out: Option<Writer>,
}

enum Part {
    Whole(Box<[u8]>),
    Begun,
    /// There was nothing more.
    End,
}

/// A datagram for the kernel.
pub(super) struct Requests {
    data: Box<[u8]>,
    /// Where the next request begins.
    next: usize,
    /// How far that one has come.
    progress: usize,
    /// How many lists were begun.
    lists: usize,
    strict: bool,
    admin: bool,
}

impl Requests {
    /// Of who runs, through this socket.
    pub fn new(data: Box<[u8]>, socket: &NetlinkSocket) -> Self {
        let (strict, admin) = (socket.is_on(raw::NETLINK_GET_STRICT_CHK), socket.is_admin());
        Requests { data, next: 0, progress: 0, lists: 0, strict, admin }
    }
}

impl Dump {
    /// As many messages as fit.
    fn part(&mut self, size: usize) -> Result<Part> {
        if frames::is_short() {
            return Err(Errno::ENOBUFS);
        }
        let mut out = match self.out.take() {
            Some(out) => out,
            None => Writer::new(size, self.seq, self.port)?,
        };
        let full = match &self.what {
            What::Route(list) => {
                list.fill(&mut self.at, &mut out);
                true
            }
            What::Sockets(list) => list.fill(&mut self.at, &mut out),
        };
        if !full {
            self.out = Some(out);
            return Ok(Part::Begun);
        }
        Ok(if out.is_empty() { Part::End } else { Part::Whole(out.into_bytes()?) })
    }

    fn end(&self) -> Result<Box<[u8]>> {
        let mut out = Writer::new(LONGEST, self.seq, self.port)?;
        let (flags, errno) = match &self.what {
            What::Route(list) => list.verdict(),
            What::Sockets(list) => (raw::NLM_F_MULTI, list.errno()),
        };
        out.begin(raw::NLMSG_DONE, flags, &errno.map_or(0, |errno| -errno.get()).to_ne_bytes());
        out.end();
        out.into_bytes()
    }
}

impl State {
    /// A part of a list, or a datagram for the kernel, is begun and not finished.
    pub(super) fn is_unfinished(&self) -> bool {
        self.dumping || self.serving || !self.requests.is_empty() || self.is_part_begun()
    }

    fn is_part_begun(&self) -> bool {
        self.dump.as_ref().is_some_and(|dump| dump.out.is_some())
    }
}

impl NetlinkSocket {
    /// Goes on with what is not finished, for one step. True: there is more.
    pub(super) fn work(&self) -> bool {
        let state = self.state.lock();
        // Another CPU's step is short.
        if state.dumping || state.serving {
            return true;
        }
        let (part, requests) = (state.is_part_begun(), !state.requests.is_empty());
        drop(state);
        if part {
            self.advance();
        } else if requests {
            self.serve();
        } else {
            return false;
        }
        self.state.lock().is_unfinished()
    }

    /// Can a datagram for the kernel be taken? If not, its sender is to come again: it has done something about it.
    pub(super) fn is_free(&self) -> bool {
        let state = self.state.lock();
        let free = state.requests.is_empty() && !state.serving;
        drop(state);
        if free || !self.work() {
            return true;
        }
        self.wake_writer();
        false
    }

    /// Does what a datagram asks for, as far as that takes no longer than a turn.
    pub(super) fn take_up(&self, requests: Requests) -> Result<()> {
        let mut state = self.state.lock();
        state.requests.try_reserve(1).map_err(|_| Errno::ENOBUFS)?;
        state.requests.push_back(requests);
        let served = state.serving;
        drop(state);
        if !served {
            self.serve();
        }
        Ok(())
    }

    /// Requests one after the other.
    fn serve(&self) {
        let mut state = self.state.lock();
        let Some(mut requests) = state.requests.pop_front() else { return };
        state.serving = true;
        drop(state);
        let over = loop {
            let Some((header, body)) = requests.data.get(requests.next..).and_then(message::first) else { break true };
            let request = Request { header, body, strict: requests.strict, admin: requests.admin };
            if !self.serve_one(&request, &mut requests.progress, &mut requests.lists) {
                break false;
            }
            requests.next = requests.next.saturating_add(message::step(&header));
            requests.progress = 0;
            // A list that is begun goes first.
            if exec::is_budget_used() || self.state.lock().is_part_begun() {
                break false;
            }
        };
        let mut state = self.state.lock();
        state.serving = false;
        let goes_on = !over && !self.closed.load(Ordering::Acquire);
        if goes_on && state.requests.try_reserve(1).is_ok() {
            state.requests.push_front(requests);
        } else {
            drop(state);
            drop(requests);
        }
        if goes_on {
            self.wake_reader();
        }
    }

    /// `progress`: how far the request has come. `lists`: how many were begun for the datagram. False: it is not finished.
    fn serve_one(&self, request: &Request<'_>, progress: &mut usize, lists: &mut usize) -> bool {
        let is_request = request.has(raw::NLM_F_REQUEST) && u32::from(request.header.kind) >= raw::NLMSG_MIN_TYPE;
        let answer = match self.protocol() {
            _ if !is_request => Ok(Answer::Done),
            // Nobody would see the answer to a question.
            protocol
                if !(protocol == ROUTE && route::is_change(request.header.kind)) && self.state.lock().congested =>
            {
                return true;
            }
            ROUTE => route::handle(request, self.port()),
            _ => diag::handle(request, self.port(), progress),
        };
        let errno = match answer {
            Ok(Answer::Later) => return false,
            Ok(Answer::Done) => None,
            Ok(Answer::One(writer)) => match writer.into_bytes() {
                Ok(data) => {
                    self.deliver(Datagram::of_kernel(data));
                    None
                }
                Err(errno) => Some(errno),
            },
            Ok(Answer::Many(what)) => match self.start(what, &request.header, lists) {
                // The end of the list tells that it is done.
                Ok(()) => return true,
                Err(errno) => Some(errno),
            },
            Err(errno) => Some(errno),
        };
        if errno.is_some() || request.has(raw::NLM_F_ACK) {
            match message::acknowledge(request, self.port(), errno, self.is_on(raw::NETLINK_CAP_ACK)) {
                Ok(data) => {
                    self.deliver(Datagram::of_kernel(data));
                }
                Err(errno) => self.common.set_error(errno),
            }
        }
        true
    }

    /// EBUSY: another list is on its way. Only the first is begun at once.
    fn start(&self, what: What, header: &Header, lists: &mut usize) -> Result<()> {
        let mut state = self.state.lock();
        if state.dump.is_some() || state.dumping {
            return Err(Errno::EBUSY);
        }
        state.dump = Some(Box::new(Dump { what, seq: header.seq, port: self.port(), at: (0, 0), out: None }));
        *lists += 1;
        // Whoever reads what there is makes the next part.
        let later = !state.inbox.is_empty() && (*lists > 1 || state.charge >= self.receive_buffer());
        drop(state);
        if !later {
            self.advance();
        }
        Ok(())
    }

    /// Makes the next part of the list that is on its way, or goes on with it. Readers that come meanwhile leave it to who is at it.
    pub(super) fn advance(&self) {
        loop {
            let mut state = self.state.lock();
            if state.dumping {
                state.again = true;
                return;
            }
            let size = state.reader.clamp(PART, MOST_PART);
            let Some(mut dump) = state.dump.take() else { return };
            state.dumping = true;
            drop(state);
            let (data, over) = match dump.part(size) {
                Ok(Part::Whole(data)) => (Some(Ok(data)), false),
                Ok(Part::Begun) => (None, false),
                Ok(Part::End) => (Some(dump.end()), true),
                Err(errno) => (Some(Err(errno)), true),
            };
            let mut state = self.state.lock();
            state.dumping = false;
            let again = data.is_some() && core::mem::take(&mut state.again) && !over;
            let closed = self.closed.load(Ordering::Acquire);
            let mut dump = Some(dump).filter(|_| !over && !closed);
            core::mem::swap(&mut state.dump, &mut dump);
            match data {
                _ if closed => {}
                None => {}
                Some(Ok(data)) if state.inbox.try_reserve(1).is_ok() => {
                    state.push(Datagram::of_kernel(data));
                }
                Some(Ok(_)) => self.common.set_error(Errno::ENOBUFS),
                Some(Err(errno)) => self.common.set_error(errno),
            }
            drop(state);
            drop(dump);
            self.wake_reader();
            if !again {
                return;
            }
        }
    }
}
