//! Epolls that watch epolls: no circles, no long chains, and not too many ways up.
//!
//! An event of a file wakes the epolls that watch it, and through each of them those that watch it in turn. That is a
//! recursion, so chains have a limit; and as many wakes as there are ways, so those have limits, too. The limits are those
//! of Linux (EP_MAX_NESTS and `path_limits` of fs/eventpoll.c).
//!
//! Both are looked for layer by layer, and a layer may be long: the searches give way. [`super::NESTING`] keeps all but one
//! out meanwhile. Those that need none of this add files without it; see [`Epoll::add_now`] for why nothing is missed.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;

use super::Epoll;
use crate::errno::{Errno, Result};
use crate::exec;
use crate::fs::open_file::OpenFile;

/// Epolls above the lowest one of a chain.
const MAX_NESTING: usize = 4;

/// Ways from a file up to epolls that nobody watches, by the number of epolls between.
type Ways = [usize; MAX_NESTING + 1];
const MOST_WAYS: Ways = [usize::MAX, 500, 100, 50, 10];

/// Epolls of a layer, by their addresses.
type Layer = BTreeMap<usize, Arc<Epoll>>;

fn address(epoll: &Arc<Epoll>) -> usize {
    Arc::as_ptr(epoll).addr()
}

/// ELOOP if `epoll` cannot watch `inner` for what is below the one and above the other.
pub async fn check_depth(epoll: &Arc<Epoll>, inner: &Arc<Epoll>) -> Result<()> {
    let mut layer = Layer::from([(address(inner), inner.clone())]);
    let mut below = 0;
    loop {
        if layer.contains_key(&address(epoll)) {
            return Err(Errno::ELOOP);
        }
        let mut next = Layer::new();
        for inner in layer.values() {
            let mut files = inner.files();
            while let Some(file) = files.next().await {
                next.extend(epoll_of(&file).map(|child| (address(&child), child)));
            }
        }
        if next.is_empty() {
            break;
        }
        below += 1;
        if below >= MAX_NESTING {
            return Err(Errno::ELOOP);
        }
        layer = next;
    }
    let ways = ways_above(epoll).await?.ok_or(Errno::ELOOP)?;
    let above = ways.iter().rposition(|count| *count > 0).unwrap_or(0);
    if below + 1 + above > MAX_NESTING { Err(Errno::ELOOP) } else { Ok(()) }
}

/// EINVAL if events of `file`, or of the files below it, have too many ways up.
pub async fn check_ways(file: &Arc<OpenFile>) -> Result<()> {
    let mut known = BTreeMap::new();
    let Some(inner) = epoll_of(file) else { return check_ways_of(file, &mut known).await };
    let mut checked = BTreeSet::new();
    let mut layer = Layer::from([(address(&inner), inner)]);
    while !layer.is_empty() {
        let mut next = Layer::new();
        for inner in layer.values() {
            let mut files = inner.files();
            while let Some(file) = files.next().await {
                match epoll_of(&file) {
                    Some(child) => _ = next.insert(address(&child), child),
                    None if checked.insert(Arc::as_ptr(&file).addr()) => check_ways_of(&file, &mut known).await?,
                    None => {}
                }
            }
        }
        layer = next;
    }
    Ok(())
}

/// The same for one file. `known`: the ways up from epolls, each of which stays while it is in there.
async fn check_ways_of(file: &OpenFile, known: &mut BTreeMap<usize, (Arc<Epoll>, Ways)>) -> Result<()> {
    let mut sum = Ways::default();
    for watcher in file.watchers()? {
        let ways = match known.get(&address(&watcher)) {
            Some((_, ways)) => *ways,
            None => {
                let ways = ways_above(&watcher).await?.ok_or(Errno::EINVAL)?;
                known.insert(address(&watcher), (watcher, ways));
                ways
            }
        };
        for (sum, count) in sum.iter_mut().zip(ways) {
            *sum = sum.saturating_add(count);
        }
    }
    if sum.iter().zip(MOST_WAYS).any(|(sum, most)| *sum > most) { Err(Errno::EINVAL) } else { Ok(()) }
}

/// Ways from `epoll` up; None if there are epolls too far above.
async fn ways_above(epoll: &Arc<Epoll>) -> Result<Option<Ways>> {
    let mut ways = Ways::default();
    let mut layer = BTreeMap::new();
    layer.insert(address(epoll), (epoll.clone(), 1_usize));
    for way in &mut ways {
        let mut next = BTreeMap::new();
        for (epoll, count) in layer.into_values() {
            let parents = epoll.watchers()?;
            if parents.is_empty() {
                *way = way.saturating_add(count);
            }
            for parent in parents {
                let (_, sum) = next.entry(address(&parent)).or_insert((parent, 0_usize));
                *sum = sum.saturating_add(count);
            }
            exec::budget().await;
        }
        if next.is_empty() {
            return Ok(Some(ways));
        }
        layer = next;
    }
    Ok(None)
}

fn epoll_of(file: &OpenFile) -> Option<Arc<Epoll>> {
    file.ops_as::<Epoll>()?.this.upgrade()
}
