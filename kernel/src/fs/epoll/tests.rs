use super::*;
use crate::exec::test_util::{block_on, run_until_idle};
use crate::fs::TryError;
use crate::fs::eventfd::EventFd;
use crate::mm::IoBuf;

const IN: u32 = 1;
const OUT: u32 = 4;

fn event_file() -> (Arc<EventFd>, Arc<OpenFile>) {
    let event = EventFd::new(0, false);
    (event.clone(), OpenFile::new_anon("[eventfd]", event, 2))
}

fn drain(event: &EventFd, file: &OpenFile) -> Result<usize, TryError> {
    event.try_read(file, &mut IoBuf::kernel_mut(&mut [0; 8]), 0)
}

fn add(epoll: &Arc<Epoll>, fd: i32, file: &Arc<OpenFile>, events: u32, data: u64) -> Result<()> {
    let (epoll, file) = (epoll.clone(), file.clone());
    block_on(async move { epoll.add(fd, &file, events, data).await })
}

fn collect(epoll: &Epoll, max: usize) -> Vec<(u32, u64)> {
    let mut found = Vec::new();
    epoll.collect_into(max, None, |events, data| {
        found.push((events, data));
        true
    });
    found
}

#[test]
fn level_triggered_events_stay_until_they_are_gone() {
    let epoll = Epoll::new(0);
    let (event, file) = event_file();
    add(&epoll, 3, &file, IN, 77).unwrap();
    assert_eq!(add(&epoll, 3, &file, IN, 77), Err(Errno::EEXIST));
    assert_eq!(collect(&epoll, 10).to_vec(), []);
    event.signal(1);
    assert_eq!(collect(&epoll, 10).to_vec(), [(IN, 77)]);
    assert_eq!(collect(&epoll, 10).to_vec(), [(IN, 77)]);
    assert!(epoll.ready().contains(Events::IN));
    drain(&event, &file).unwrap();
    assert_eq!(collect(&epoll, 10).to_vec(), []);
    assert!(epoll.ready().is_empty());
    event.signal(1);
    assert_eq!(collect(&epoll, 10).to_vec(), [(IN, 77)]);
}

#[test]
fn edge_triggered_events_come_once_per_wake() {
    let epoll = Epoll::new(0);
    let (event, file) = event_file();
    event.signal(1);
    add(&epoll, 3, &file, IN | EPOLLET, 1).unwrap();
    assert_eq!(collect(&epoll, 10).to_vec(), [(IN, 1)]);
    assert_eq!(collect(&epoll, 10).to_vec(), []);
    event.signal(1);
    assert_eq!(collect(&epoll, 10).to_vec(), [(IN, 1)]);
    assert_eq!(collect(&epoll, 10).to_vec(), []);
}

#[test]
fn one_shot_waits_for_its_modification() {
    let epoll = Epoll::new(0);
    let (event, file) = event_file();
    add(&epoll, 3, &file, IN | EPOLLONESHOT, 1).unwrap();
    event.signal(1);
    assert_eq!(collect(&epoll, 10).to_vec(), [(IN, 1)]);
    event.signal(1);
    assert_eq!(collect(&epoll, 10).to_vec(), []);
    epoll.modify(3, &file, IN | OUT | EPOLLONESHOT, 2).unwrap();
    assert_eq!(collect(&epoll, 10).to_vec(), [(IN | OUT, 2)]);
}

#[test]
fn deleted_and_closed_files_say_nothing_more() {
    let epoll = Epoll::new(0);
    let (event, file) = event_file();
    add(&epoll, 3, &file, IN, 1).unwrap();
    event.signal(1);
    epoll.delete(3, &file).unwrap();
    assert_eq!(epoll.delete(3, &file), Err(Errno::ENOENT));
    assert_eq!(collect(&epoll, 10).to_vec(), []);
    add(&epoll, 3, &file, IN, 1).unwrap();
    drop(file);
    assert_eq!(collect(&epoll, 10).to_vec(), []);
    event.signal(1);
    assert_eq!(collect(&epoll, 10).to_vec(), []);
    assert!(epoll.watches.lock().is_empty());
}

#[test]
fn everybody_gets_a_turn() {
    let epoll = Epoll::new(0);
    let files: Vec<_> = (0..5).map(|_| event_file()).collect();
    for (n, (event, file)) in files.iter().enumerate() {
        add(&epoll, n as i32, file, IN, n as u64).unwrap();
        event.signal(1);
    }
    let first: Vec<u64> = collect(&epoll, 3).iter().map(|(_, data)| *data).collect();
    let second: Vec<u64> = collect(&epoll, 3).iter().map(|(_, data)| *data).collect();
    assert_eq!((first, second), (alloc::vec![0, 1, 2], alloc::vec![3, 4, 0]));
}

#[test]
fn epolls_watch_epolls_but_not_in_circles() {
    let (inner, outer) = (Epoll::new(0), Epoll::new(0));
    let inner_file = OpenFile::new_anon("[eventpoll]", inner.clone(), 2);
    let outer_file = OpenFile::new_anon("[eventpoll]", outer.clone(), 2);
    add(&outer, 4, &inner_file, IN, 9).unwrap();
    assert_eq!(add(&inner, 5, &outer_file, IN, 9), Err(Errno::ELOOP));
    assert_eq!(add(&outer, 5, &outer_file, IN, 9), Err(Errno::EINVAL));
    let (event, file) = event_file();
    add(&inner, 3, &file, IN, 1).unwrap();
    event.signal(1);
    assert_eq!(collect(&outer, 10).to_vec(), [(IN, 9)]);
}

#[test]
fn chains_and_ways_are_limited_from_both_sides() {
    let make = || {
        let epoll = Epoll::new(0);
        let file = OpenFile::new_anon("[eventpoll]", epoll.clone(), 2);
        (epoll, file)
    };
    let chain: Vec<_> = (0..5).map(|_| make()).collect();
    for pair in chain.windows(2) {
        add(&pair[0].0, 4, &pair[1].1, IN, 0).unwrap();
    }
    let (one_more, file) = make();
    assert_eq!(add(&chain[4].0, 4, &file, IN, 0), Err(Errno::ELOOP));
    assert_eq!(add(&one_more, 4, &chain[0].1, IN, 0), Err(Errno::ELOOP));
    // Of three layers of five, the last epoll makes too many ways.
    let (event, file) = event_file();
    let layers: [Vec<_>; 3] = core::array::from_fn(|_| (0..5).map(|_| make()).collect());
    let mut last = Ok(());
    for (lower, upper) in [(None, &layers[0]), (Some(&layers[0]), &layers[1]), (Some(&layers[1]), &layers[2])] {
        for (epoll, _) in upper {
            for target in lower.map_or(alloc::vec![&file], |lower| lower.iter().map(|(_, file)| file).collect()) {
                last = last.and(add(epoll, 4, target, IN, 0));
            }
        }
    }
    assert_eq!(last, Err(Errno::EINVAL));
    event.signal(1);
    assert_eq!(collect(&layers[2][0].0, 10).len(), 5);
}

#[test]
fn a_waiter_is_woken() {
    let epoll = Epoll::new(0);
    let (event, file) = event_file();
    add(&epoll, 3, &file, IN, 5).unwrap();
    let waiting = epoll.clone();
    let signal = event.clone();
    crate::exec::spawn("later", async move {
        crate::exec::yield_now().await;
        signal.signal(1);
    });
    let found = block_on(async move {
        waiting.queue().wait_for(|| Some(collect(&waiting, 1)).filter(|found| !found.is_empty())).await
    });
    assert_eq!(found.to_vec(), [(IN, 5)]);
    run_until_idle();
    drop(file);
}

#[test]
fn deleted_watches_do_not_pile_up_on_the_ready_list() {
    let epoll = Epoll::new(0);
    let (event, file) = event_file();
    event.signal(1);
    for fd in 0..1000 {
        add(&epoll, fd, &file, IN, fd as u64).unwrap();
        if fd >= 5 {
            epoll.delete(fd, &file).unwrap();
        }
    }
    let ready = epoll.ready.lock();
    assert!(ready.list.len() <= 5 + 2 * FEW_DELETED, "{}", ready.list.len());
    drop(ready);
    assert_eq!(collect(&epoll, 1000).to_vec(), [0, 1, 2, 3, 4].map(|fd| (IN, fd)));
    assert_eq!(epoll.ready.lock().deleted, 0);
}

#[test]
fn who_looks_while_a_watch_is_looked_at_is_told_when_it_stays() {
    let epoll = Epoll::new(0);
    let (event, file) = event_file();
    event.signal(1);
    add(&epoll, 3, &file, IN, 7).unwrap();
    let poller = epoll.clone();
    let mut seen = None;
    let woken = Arc::new(core::sync::atomic::AtomicUsize::new(0));
    struct Count(Arc<core::sync::atomic::AtomicUsize>);
    impl alloc::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, core::sync::atomic::Ordering::SeqCst);
        }
    }
    let entry = crate::exec::WaitEntry::new(Arc::new(Count(woken.clone())).into(), Events::IN.bits());
    epoll.queue().add(&entry);
    assert_eq!(
        epoll
            .collect_into(1, None, |_, _| {
                seen = Some(poller.ready());
                true
            })
            .count,
        1
    );
    assert_eq!(seen, Some(Events::empty()), "the only one is off the list");
    assert_eq!(woken.load(core::sync::atomic::Ordering::SeqCst), 1);
    assert_eq!(collect(&epoll, 1).len(), 1);
    assert_eq!(woken.load(core::sync::atomic::Ordering::SeqCst), 1, "nobody has looked in vain");
    epoll.queue().remove(&entry);
}
