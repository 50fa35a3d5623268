//! A line of those who wait until somebody else has done what they want, in their place.
//!
//! The line is part of the object, under its lock. Who waits has a ticket, by which it finds its result, and by which it is
//! found in the object's wait queue.

use alloc::collections::VecDeque;

use smallvec::SmallVec;

use crate::exec::WaitQueue;

/// Unique in a line, and in all lines that share a wait queue.
pub type Ticket = u64;

/// Who has been served and is to be woken when the lock is released.
#[derive(Default)]
pub struct Served(SmallVec<[Ticket; 4]>);

impl Served {
    pub fn push(&mut self, ticket: Ticket) {
        self.0.push(ticket);
    }

    /// Wakes them. The object's lock is not held.
    pub fn wake(mut self, queue: &WaitQueue) {
        match self.0.as_slice() {
            [] => {}
            &[one] => {
                queue.wake_where(1, |key, _| key == one);
            }
            _ => {
                self.0.sort_unstable();
                queue.wake_where(self.0.len(), |key, _| self.0.binary_search(&key).is_ok());
            }
        }
    }
}

struct Place<W> {
    ticket: Ticket,
    wants: W,
}

/// See the module's comment. `W` is what one waits for, `R` what comes of it.
pub struct Line<W, R> {
    waiting: VecDeque<Place<W>>,
    /// Results that were not fetched yet, by ticket.
    results: VecDeque<(Ticket, R)>,
}

impl<W, R> Line<W, R> {
    pub const fn new() -> Self {
        Line { waiting: VecDeque::new(), results: VecDeque::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Goes to the end of the line.
    pub fn join(&mut self, ticket: Ticket, wants: W) {
        self.waiting.push_back(Place { ticket, wants });
    }

    /// Goes before the first one of whom that is true, or to the end.
    pub fn join_before(&mut self, ticket: Ticket, wants: W, is_behind: impl Fn(&W) -> bool) {
        let index = self.waiting.iter().position(|place| is_behind(&place.wants)).unwrap_or(self.waiting.len());
        self.waiting.insert(index, Place { ticket, wants });
    }

    pub fn get(&self, index: usize) -> Option<&W> {
        self.waiting.get(index).map(|place| &place.wants)
    }

    pub fn get_mut(&mut self, index: usize) -> Option<&mut W> {
        self.waiting.get_mut(index).map(|place| &mut place.wants)
    }

    pub fn iter(&self) -> impl Iterator<Item = &W> {
        self.waiting.iter().map(|place| &place.wants)
    }

    /// Leaves a result for the one at `index`, who leaves the line.
    pub fn serve(&mut self, index: usize, result: R, served: &mut Served) -> Option<W> {
        let place = self.waiting.remove(index)?;
        // Mostly those are served first who came first.
        let at = match self.results.back() {
            Some((last, _)) if *last > place.ticket => self.results.partition_point(|(owner, _)| *owner < place.ticket),
            _ => self.results.len(),
        };
        self.results.insert(at, (place.ticket, result));
        served.push(place.ticket);
        Some(place.wants)
    }

    /// Leaves a result for the first one, or gives it back if there is nobody.
    pub fn serve_first(&mut self, result: R, served: &mut Served) -> Option<R> {
        if self.is_empty() {
            return Some(result);
        }
        self.serve(0, result, served);
        None
    }

    /// The result, if there is one.
    pub fn fetch(&mut self, ticket: Ticket) -> Option<R> {
        let index = self.results.binary_search_by_key(&ticket, |(owner, _)| *owner).ok()?;
        Some(self.results.remove(index)?.1)
    }

    /// Leaves the line, with the result if there was one already.
    pub fn leave(&mut self, ticket: Ticket) -> Option<R> {
        if let Some(result) = self.fetch(ticket) {
            return Some(result);
        }
        // A line in order of rank is not one in order of tickets.
        let found = self.waiting.binary_search_by_key(&ticket, |place| place.ticket).ok();
        let right = |index: &usize| self.waiting.get(*index).is_some_and(|place| place.ticket == ticket);
        let search = || self.waiting.iter().position(|place| place.ticket == ticket);
        if let Some(index) = found.filter(right).or_else(search) {
            self.waiting.remove(index);
        }
        None
    }
}
