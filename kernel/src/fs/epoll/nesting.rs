//! Epolls that watch epolls: no circles, no long chains, and not too many ways up.
//!
//! An event of a file wakes the epolls that watch it, and through each of them those that watch it in turn. That is a
//! recursion, so chains have a limit; and as many wakes as there are ways, so those have limits, too. The limits are those
//! of Linux (EP_MAX_NESTS and `path_limits` of fs/eventpoll.c). Each epoll is visited once, however many ways lead to it.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Epoll;
use crate::errno::{Errno, Result};
use crate::fs::open_file::OpenFile;

/// Epolls above the lowest one of a chain.
const MAX_NESTING: usize = 4;

/// Ways from a file up to epolls that nobody watches, by the number of epolls between.
type Ways = [usize; MAX_NESTING + 1];
const MOST_WAYS: Ways = [usize::MAX, 500, 100, 50, 10];

fn address(epoll: &Epoll) -> usize {
    core::ptr::from_ref(epoll).addr()
}

/// What is found on the way, too: it must not be let go of under a lock, each reference may be the last.
#[derive(Default)]
pub struct Search {
    levels: BTreeMap<usize, usize>,
    ways: BTreeMap<usize, Ways>,
    files: BTreeMap<usize, Arc<OpenFile>>,
    found: Vec<Arc<OpenFile>>,
    outer: Vec<Arc<Epoll>>,
}

impl Search {
    /// ELOOP if `epoll` cannot watch `inner` for what is below the one and above the other. [`super::NESTING`] is held.
    pub fn check_depth(&mut self, epoll: &Epoll, inner: &Epoll) -> Result<()> {
        let below = self.levels_below(inner, epoll, 0).ok_or(Errno::ELOOP)?;
        let ways = self.ways_above(epoll, 0).ok_or(Errno::ELOOP)?;
        let above = ways.iter().rposition(|count| *count > 0).unwrap_or(0);
        if below + 1 + above > MAX_NESTING { Err(Errno::ELOOP) } else { Ok(()) }
    }

    /// Levels of epolls below `epoll`; None if there are too many, or `top` is among them.
    fn levels_below(&mut self, epoll: &Epoll, top: &Epoll, depth: usize) -> Option<usize> {
        if core::ptr::eq(epoll, top) || depth > MAX_NESTING {
            return None;
        }
        if let Some(known) = self.levels.get(&address(epoll)) {
            return Some(*known);
        }
        let mut levels = 0;
        let files = epoll.watched();
        self.found.extend(files.iter().cloned());
        for file in &files {
            match file.ops_as::<Epoll>() {
                Some(child) => levels = levels.max(1 + self.levels_below(child, top, depth + 1)?),
                None => _ = self.files.insert(Arc::as_ptr(file).addr(), file.clone()),
            }
        }
        self.levels.insert(address(epoll), levels);
        Some(levels)
    }

    /// Ways from `epoll` up.
    fn ways_above(&mut self, epoll: &Epoll, depth: usize) -> Option<Ways> {
        if depth > MAX_NESTING {
            return None;
        }
        if let Some(known) = self.ways.get(&address(epoll)) {
            return Some(*known);
        }
        let parents = epoll.watchers();
        self.outer.extend(parents.iter().cloned());
        let mut ways = Ways::default();
        ways[0] = usize::from(parents.is_empty());
        for parent in &parents {
            let [above @ .., beyond] = self.ways_above(parent, depth + 1)?;
            if beyond > 0 {
                return None;
            }
            for (sum, count) in ways.iter_mut().skip(1).zip(above) {
                *sum = sum.saturating_add(count);
            }
        }
        self.ways.insert(address(epoll), ways);
        Some(ways)
    }

    /// EINVAL if events of `file`, or of those that were found below it, have too many ways now.
    pub fn check_ways(&mut self, file: &Arc<OpenFile>) -> Result<()> {
        // There is a new one.
        self.ways.clear();
        let mut files: Vec<_> = self.files.values().cloned().collect();
        if file.ops_as::<Epoll>().is_none() {
            files.push(file.clone());
        }
        for file in &files {
            let mut sum = Ways::default();
            let watchers = file.watchers();
            self.outer.extend(watchers.iter().cloned());
            for watcher in &watchers {
                let ways = self.ways_above(watcher, 0).ok_or(Errno::EINVAL)?;
                for (sum, count) in sum.iter_mut().zip(ways) {
                    *sum = sum.saturating_add(count);
                }
            }
            if sum.iter().zip(MOST_WAYS).any(|(sum, most)| *sum > most) {
                return Err(Errno::EINVAL);
            }
        }
        Ok(())
    }
}
