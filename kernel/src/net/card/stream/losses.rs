//! What a connection does about losses that the stack does not see.

use smoltcp::socket::tcp::State;
use smoltcp::wire::TcpSeqNumber;

use super::super::recovery::{Acknowledgement, Said, frame};
use super::super::wire::Wire;
use super::Stream;

impl Stream {
    /// A segment that the stack must not see.
    pub fn hides(&self, wire: &Wire, said: &Said) -> bool {
        let Said::Acknowledges(told) = said else { return false };
        self.recovery.is_to_be_hidden(told) || self.recovery.is_repeated(told) && !self.reaches(wire)
    }

    /// The stack sends at once what it is to send. If it has to ask for the neighbour first, it forgets that it was to send something
    /// again, and has stopped the clock for it.
    fn reaches(&self, wire: &Wire) -> bool {
        let hop = wire.settings.next_hop(self.pair.1.ip);
        hop.is_some_and(|hop| wire.port.with_neighbours(|known| known.is_cached(hop, wire.now)))
    }

    /// Before the stack hears this: does it end losses for which its window was cut too often?
    pub fn make_amends(&mut self, wire: &mut Wire, said: &Said) {
        if let Said::Acknowledges(told) = said
            && self.established
        {
            let (pair, mac) = (self.pair, wire.port.card().mac());
            let amends = self.recovery.amends(told, &mut wire.singles).filter_map(move |told| frame(told, pair, mac));
            amends.for_each(|frame| self.feed(wire, frame));
        }
    }

    /// A segment has been processed: does it tell of a loss that the stack does not see?
    pub fn recover(&mut self, wire: &mut Wire, said: Said) {
        match said {
            Said::Acknowledges(told) if self.established => {
                // What is late says nothing new, and the stack has not taken what it acknowledges.
                if self.acknowledged() == Some(told.ack) && self.recovery.heard(told, wire.now) && self.reaches(wire) {
                    self.recovery.note_cut();
                    self.tell_of_loss(wire);
                }
            }
            _ => self.recovery.heard_other(wire.now),
        }
    }

    /// Up to where the other machine has everything, as the stack knows it.
    fn acknowledged(&self) -> Option<TcpSeqNumber> {
        let waits = self.sockets.get::<smoltcp::socket::tcp::Socket>(self.handle).send_queue();
        self.first.map(|first| TcpSeqNumber(first.0.wrapping_add(self.given.wrapping_sub(waits as u64) as i32)))
    }

    /// Does nothing come any more, though something should?
    pub fn recover_from_silence(&mut self, wire: &mut Wire) {
        if !self.recovery.is_due(wire.now) {
            return;
        }
        if !self.reaches(wire) {
            // The stack's own time-out asks for the neighbour.
            return self.recovery.wait(wire.now);
        }
        self.recovery.ask(wire.now);
        self.tell_of_loss(wire);
    }

    fn tell_of_loss(&mut self, wire: &mut Wire) {
        // An end without data the stack would not send again.
        if self.socket().send_queue() > 0 {
            let frames = self.recovery.frames(self.pair, wire.port.card().mac());
            frames.for_each(|frame| self.feed(wire, frame));
        }
    }

    /// The stack has something that is not acknowledged, and no plan for it: its time-out came while the window was closed, or the
    /// window was closed while something was lost. It would wait for ever.
    pub fn keep_going(&mut self, wire: &mut Wire) {
        let sends = matches!(
            self.state(),
            State::Established | State::CloseWait | State::FinWait1 | State::Closing | State::LastAck
        );
        if !sends || self.socket().send_queue() == 0 {
            return;
        }
        // A time-out ends the connection, and sends nothing.
        let timeout = self.socket().timeout();
        self.socket().set_timeout(None);
        let planned = wire.due(&self.sockets);
        self.socket().set_timeout(timeout);
        if planned.is_some() {
            return;
        }
        let last = self.recovery.last();
        if last.is_some_and(|last| last.window > 0) {
            self.tell_of_loss(wire);
            self.send(wire);
        } else if let Some(frame) =
            last.or_else(|| self.closed()).and_then(|told| frame(told, self.pair, wire.port.card().mac()))
        {
            self.feed(wire, frame);
        }
    }

    /// By this the stack begins to ask who has closed his window whether it is open again. The answer says so if it always was.
    fn closed(&self) -> Option<Acknowledgement> {
        Some(Acknowledgement { seq: self.expected?, ack: self.acknowledged()?, window: 0 })
    }
}
