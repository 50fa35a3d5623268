//! What a connection does about losses that the stack does not see.

use super::super::recovery::Said;
use super::super::wire::Wire;
use super::Stream;

impl Stream {
    /// A segment that the stack must not see.
    pub fn hides(&self, said: &Said) -> bool {
        matches!(said, Said::Acknowledges(told) if self.recovery.is_to_be_hidden(told))
    }

    /// A segment has been processed: does it tell of a loss that the stack does not see?
    pub fn recover(&mut self, wire: &mut Wire, said: Said) {
        match said {
            Said::Acknowledges(told) if self.established => {
                if self.recovery.heard(told, wire.now) {
                    self.tell_of_loss(wire);
                }
            }
            _ => self.recovery.heard_other(wire.now),
        }
    }

    /// Does nothing come any more, though something should?
    pub fn recover_from_silence(&mut self, wire: &mut Wire) {
        if self.recovery.is_silent(wire.now) {
            self.tell_of_loss(wire);
        }
    }

    fn tell_of_loss(&mut self, wire: &mut Wire) {
        // An end without data the stack would not send again.
        if self.socket().send_queue() > 0 {
            let frames = self.recovery.frames(self.pair, wire.port.card().mac());
            frames.for_each(|frame| wire.feed(frame, &mut self.sockets));
        }
    }
}
