//! Packets of these sockets that have not arrived.

use super::{IpSocket, table};
use crate::errno::Errno;
use crate::fs::sigio;
use crate::net::inet::Endpoint;
use crate::net::inet::failures::{Failure, Reaction};

/// Raw sockets of a protocol are told of all packets that could be theirs (raw_err and rawv6_err of Linux).
pub fn failed_raw(failure: &Failure<'_>) {
    for socket in table::raw(failure.protocol, failure.to.is_ipv4()) {
        socket.note_raw(failure);
    }
}

/// A question that has not arrived: who asked is told.
pub fn failed_echo(failure: &Failure<'_>) {
    let is_question = failure.body.first_chunk() == Some(&super::send::question(failure.to.is_ipv4()));
    let ident = failure.body.get(4..6).and_then(|ident| ident.first_chunk());
    if let Some(ident) = ident.filter(|_| is_question)
        && let Some(socket) = table::asking(u16::from_be_bytes(*ident), failure.from, failure.by.index)
    {
        socket.note_echo(failure);
    }
}

impl IpSocket {
    fn note_raw(&self, failure: &Failure<'_>) {
        let v4 = failure.to.is_ipv4();
        let state = self.state.lock();
        let local = state.local.is_any() || state.local.ip == failure.from;
        let remote = state.remote.is_none_or(|remote| remote.ip == failure.to);
        let connected = state.remote.is_some();
        drop(state);
        let asked = self.ip.told().errors(v4);
        if !(local && remote && (asked || connected)) {
            return;
        }
        let options = *self.ip.lock();
        let lasts = failure.lasts || failure.is_size && if v4 { options.discovers(v4) } else { !options.fragments(v4) };
        if asked {
            let whole = self.raw_options.lock().with_header;
            let payload = if whole { failure.quoted } else { failure.body };
            self.failures.add(&self.common, failure, Endpoint { ip: failure.to, port: 0 }, payload);
        }
        if asked || lasts {
            self.fail(failure.errno);
        }
    }

    fn note_echo(&self, failure: &Failure<'_>) {
        let options = *self.ip.lock();
        let connected = self.state.lock().remote.is_some();
        let reaction = failure.reaction(&options, self.ip.told().errors(self.is_v4()), connected);
        if reaction == Reaction::Story {
            self.failures.add(&self.common, failure, Endpoint { ip: failure.to, port: 0 }, failure.body);
        }
        if reaction != Reaction::Nothing {
            self.fail(failure.errno);
        }
    }

    fn fail(&self, errno: Errno) {
        self.common.set_error(errno);
        self.queue.wake(usize::MAX, sigio::QUIET | sigio::ERR);
    }
}
