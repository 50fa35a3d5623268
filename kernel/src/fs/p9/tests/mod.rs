//! The file system against a server in memory, honest and not.

mod hostile;
mod server;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::poll_fn;
use core::task::Poll;

use self::server::Server;
use super::channel::Claim;
use super::options::Options;
use super::{P9Fs, mount};
use crate::errno::{Errno, Result};
use crate::exec;
use crate::fs::inode::{DeviceId, DirSink, FileSystem, FileType, Inode, NewAttr, NewNode, RenameFlags, SetAttr};
use crate::mm::IoBuf;
use crate::mm::test_util::run;

const ATTR: NewAttr = NewAttr { perm: 0o640, uid: 7, gid: 0 };
const NO_FLAGS: RenameFlags = RenameFlags::empty();

async fn try_mount(server: &Arc<Server>, options: &[u8]) -> Result<Arc<P9Fs>> {
    mount(Claim::of_channel(server.clone()), &Options::parse(options)?, b"host").await
}

async fn mounted(server: &Arc<Server>) -> (Arc<P9Fs>, Arc<dyn Inode>) {
    let fs = try_mount(server, b"").await.unwrap();
    let root = fs.root();
    (fs, root)
}

async fn make(dir: &Arc<dyn Inode>, name: &[u8]) -> Arc<dyn Inode> {
    dir.create(name, NewNode::Regular, ATTR).await.unwrap()
}

async fn write(file: &Arc<dyn Inode>, pos: u64, data: &[u8]) -> Result<usize> {
    file.write_through(pos, &mut IoBuf::kernel(data)).await
}

async fn read(file: &Arc<dyn Inode>, pos: u64, len: usize) -> Result<Vec<u8>> {
    let mut data = vec![0xee; len];
    let n = file.read_through(pos, &mut IoBuf::kernel_mut(&mut data)).await?;
    data.truncate(n);
    Ok(data)
}

/// Lets the session's tasks work.
async fn settle() {
    for _ in 0..50 {
        exec::yield_now().await;
    }
}

/// Takes so many entries and then no more.
struct Names {
    names: Vec<(Vec<u8>, FileType)>,
    room: usize,
    next: u64,
}

impl DirSink for Names {
    fn entry(&mut self, _ino: u64, next: u64, kind: FileType, name: &[u8]) -> bool {
        if self.room == 0 {
            return false;
        }
        self.room -= 1;
        self.next = next;
        self.names.push((name.to_vec(), kind));
        true
    }
}

async fn list(dir: &Arc<dyn Inode>, step: usize) -> Vec<(Vec<u8>, FileType)> {
    let mut names = Names { names: Vec::new(), room: 0, next: 0 };
    loop {
        let before = names.names.len();
        names.room = step;
        let from = names.next;
        dir.read_dir(from, &mut names).await.unwrap();
        if names.names.len() == before {
            return names.names;
        }
    }
}

#[test]
fn what_is_written_is_on_the_server_and_a_file_is_made_once() {
    let server = Server::new();
    run(async move {
        let (_fs, root) = mounted(&server).await;
        let file = make(&root, b"new").await;
        assert_eq!(server.count(14), 1, "one Tlcreate");
        assert_eq!(root.create(b"new", NewNode::Regular, ATTR).await.err(), Some(Errno::EEXIST));
        assert_eq!((file.kind(), file.metadata().perm, file.metadata().uid), (FileType::Regular, 0o640, 7));
        assert_eq!(write(&file, 0, b"hello").await, Ok(5));
        assert_eq!(write(&file, 7, b"you").await, Ok(3));
        assert_eq!(file.size(), 10);
        assert_eq!(server.get(b"new").unwrap(), b"hello\0\0you");
        assert_eq!(read(&file, 3, 100).await.unwrap(), b"lo\0\0you");
        file.set_attr(SetAttr { size: Some(2), ..SetAttr::default() }).await.unwrap();
        assert_eq!((server.get(b"new").unwrap(), file.size()), (b"he".to_vec(), 2));
    });
}

#[test]
fn messages_are_no_longer_than_was_agreed() {
    let server = Server::new();
    run(async move {
        server.0.lock().unwrap().msize = 5000;
        let (_fs, root) = mounted(&server).await;
        let file = make(&root, b"long").await;
        let data: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
        assert_eq!(write(&file, 0, &data).await, Ok(100_000));
        assert!(read(&file, 0, 200_000).await.unwrap() == data);
        for index in 0..300 {
            make(&root, format!("{index:0100}").as_bytes()).await;
        }
        assert_eq!(list(&root, 1000).await.len(), 303);
        let longest = server.0.lock().unwrap().longest;
        assert!((4900..=5000).contains(&longest), "{longest}");
    });
}

#[test]
fn what_others_change_is_seen() {
    let server = Server::new();
    run(async move {
        let (_fs, root) = mounted(&server).await;
        assert_eq!(root.lookup(b"file").await.err(), Some(Errno::ENOENT));
        server.put(b"file", b"one");
        let file = root.lookup(b"file").await.unwrap();
        assert_eq!(read(&file, 0, 10).await.unwrap(), b"one");
        server.put(b"file", b"seven");
        assert_eq!(read(&file, 0, 10).await.unwrap(), b"seven");
        assert!(Arc::ptr_eq(&root.lookup(b"file").await.unwrap(), &file), "one inode for one file");
        assert_eq!(file.size(), 5);
        server.put(b"file", b"eleven");
        exec::sleep_until(exec::Instant::now().checked_add(core::time::Duration::from_millis(2)).unwrap()).await;
        file.refresh().await.unwrap();
        assert_eq!(file.size(), 6);
    });
}

#[test]
fn mapped_pages_follow_changes_and_are_stored() {
    let server = Server::new();
    run(async move {
        let (_fs, root) = mounted(&server).await;
        server.put(b"file", &[b'a'; 5000]);
        let file = root.lookup(b"file").await.unwrap();
        let cache = file.page_cache().unwrap().clone();
        let page = cache.get(1, 5000).await.unwrap();
        assert_eq!((page.frame().bytes()[903], page.frame().bytes()[904]), (b'a', 0));
        drop(page);
        // From elsewhere.
        server.put(b"file", &[b'b'; 5000]);
        root.lookup(b"file").await.unwrap();
        assert_eq!(cache.get(0, 5000).await.unwrap().frame().bytes()[0], b'b');
        // Past the pages.
        write(&file, 10, b"xyz").await.unwrap();
        let page = cache.get(0, 5000).await.unwrap();
        assert_eq!(&page.frame().bytes()[9..14], b"bxyzb");
        // In the pages: read finds it, and so does the server.
        page.write_at(0, b"mapped");
        cache.mark_dirty(&page);
        drop(page);
        assert_eq!(read(&file, 0, 8).await.unwrap(), b"mappedbb");
        assert_eq!(&server.get(b"file").unwrap()[..8], b"mappedbb");
        assert_eq!(server.get(b"file").unwrap().len(), 5000);
    });
}

#[test]
fn names_come_and_go() {
    let server = Server::new();
    run(async move {
        let (_fs, root) = mounted(&server).await;
        let dir = root.create(b"dir", NewNode::Directory, ATTR).await.unwrap();
        let file = make(&root, b"file").await;
        dir.link(b"other", &file).await.unwrap();
        assert_eq!(file.metadata().nlink, 2);
        let link = root.create(b"link", NewNode::Symlink(b"dir/other"), ATTR).await.unwrap();
        assert_eq!((link.kind(), link.read_link().await.unwrap()), (FileType::Symlink, b"dir/other".to_vec()));
        root.create(b"null", NewNode::CharDevice(DeviceId::new(1, 3)), ATTR).await.unwrap();
        root.rename(b"file", &file, &dir, b"moved", None, NO_FLAGS).await.unwrap();
        assert_eq!(root.lookup(b"file").await.err(), Some(Errno::ENOENT));
        assert!(Arc::ptr_eq(&dir.lookup(b"moved").await.unwrap(), &file));
        assert_eq!(root.unlink(b"dir", &dir).await, Err(Errno::ENOTEMPTY));
        let other = make(&root, b"victim").await;
        dir.rename(b"moved", &file, &root, b"victim", Some(&other), NO_FLAGS).await.unwrap();
        assert_eq!(other.metadata().nlink, 0);
        let exchange = RenameFlags::EXCHANGE;
        assert_eq!(root.rename(b"victim", &file, &root, b"dir", Some(&dir), exchange).await, Err(Errno::EINVAL));
        let kinds = list(&root, 2).await;
        let found: Vec<_> = kinds.iter().map(|(name, kind)| (&name[..], *kind)).collect();
        use FileType::*;
        let expected: [(&[u8], FileType); 6] = [
            (b".", Directory),
            (b"..", Directory),
            (b"dir", Directory),
            (b"link", Symlink),
            (b"null", CharDevice),
            (b"victim", Regular),
        ];
        assert_eq!(found, expected);
    });
}

#[test]
fn a_file_that_is_open_survives_its_name() {
    let server = Server::new();
    run(async move {
        let (_fs, root) = mounted(&server).await;
        let file = make(&root, b"file").await;
        write(&file, 0, b"content").await.unwrap();
        root.unlink(b"file", &file).await.unwrap();
        assert_eq!(file.metadata().nlink, 0);
        write(&file, 7, b" and more").await.unwrap();
        assert_eq!(read(&file, 0, 100).await.unwrap(), b"content and more");
        file.refresh().await.unwrap();
        assert_eq!((file.metadata().nlink, file.size()), (0, 16));
        let new = make(&root, b"file").await;
        assert!(!Arc::ptr_eq(&new, &file));
    });
}

/// Locks of directories are taken parents first, so one that has moved without our knowing is not the same any more.
#[test]
fn a_directory_found_under_another_name_is_another() {
    let server = Server::new();
    run(async move {
        let (_fs, root) = mounted(&server).await;
        let dir = root.create(b"dir", NewNode::Directory, ATTR).await.unwrap();
        {
            let mut state = server.0.lock().unwrap();
            let names = &mut state.nodes.get_mut(&1).unwrap().names;
            let number = names.remove(&b"dir"[..]).unwrap();
            names.insert(b"renamed".to_vec(), number);
            // And the root is in itself.
            names.insert(b"loop".to_vec(), 1);
        }
        assert!(!Arc::ptr_eq(&root.lookup(b"renamed").await.unwrap(), &dir));
        let inner = root.lookup(b"loop").await.unwrap();
        assert!(!Arc::ptr_eq(&inner, &root));
        assert!(!Arc::ptr_eq(&inner.lookup(b"loop").await.unwrap(), &inner));
    });
}

#[test]
fn fids_are_let_go_of() {
    let server = Server::new();
    run(async move {
        let (fs, root) = mounted(&server).await;
        for index in 0..20 {
            let file = make(&root, format!("{index}").as_bytes()).await;
            write(&file, 0, b"x").await.unwrap();
            root.set_xattr(b"user.a", b"b", 0).await.unwrap();
        }
        list(&root, 3).await;
        settle().await;
        assert_eq!(server.fids(), 2, "the root, and the root open for reading");
        drop((fs, root));
        settle().await;
        assert_eq!(server.fids(), 0);
    });
}

#[test]
fn attributes_with_names() {
    let server = Server::new();
    run(async move {
        let (_fs, root) = mounted(&server).await;
        let file = make(&root, b"file").await;
        let long = vec![b'v'; 20_000];
        file.set_xattr(b"user.long", &long, 0).await.unwrap();
        file.set_xattr(b"user.short", b"v", 0).await.unwrap();
        assert!(file.get_xattr(b"user.long").await.unwrap() == long);
        assert_eq!(file.list_xattr().await.unwrap(), b"user.long\0user.short\0");
        file.remove_xattr(b"user.long").await.unwrap();
        assert_eq!(file.get_xattr(b"user.long").await.err(), Some(Errno::ENODATA));
        assert_eq!(file.remove_xattr(b"user.long").await.err(), Some(Errno::ENODATA));
        assert_eq!(file.set_xattr(b"user.empty", b"", 0).await.err(), Some(Errno::EOPNOTSUPP));
    });
}

/// Polls once and gives up.
async fn give_up<T>(future: impl Future<Output = T>) {
    let mut future = core::pin::pin!(future);
    poll_fn(|cx| {
        assert!(future.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}

#[test]
fn a_request_that_is_given_up_is_flushed() {
    let server = Server::new();
    run(async move {
        let (_fs, root) = mounted(&server).await;
        let file = make(&root, b"file").await;
        write(&file, 0, b"content").await.unwrap();
        // More often than there are tags.
        for _ in 0..200 {
            server.0.lock().unwrap().silent = vec![116];
            give_up(read(&file, 0, 4)).await;
            server.0.lock().unwrap().silent.clear();
            settle().await;
        }
        assert_eq!(server.count(108), 200);
        assert_eq!(read(&file, 0, 4).await.unwrap(), b"cont");
    });
}

#[test]
fn a_change_that_is_given_up_runs_to_its_end() {
    let server = Server::new();
    run(async move {
        let (_fs, root) = mounted(&server).await;
        server.0.lock().unwrap().silent = vec![110];
        give_up(root.create(b"file", NewNode::Regular, ATTR)).await;
        give_up(root.lookup(b"nothing")).await;
        settle().await;
        assert_eq!(server.count(108), 0, "what makes a fid is not flushed");
        server.speak();
        settle().await;
        assert_eq!(server.get(b"file").unwrap(), b"");
        assert_eq!(server.fids(), 1);
    });
}

#[test]
fn many_requests_are_under_way_at_once() {
    let server = Server::new();
    run(async move {
        let (_fs, root) = mounted(&server).await;
        let file = make(&root, b"file").await;
        write(&file, 0, b"content").await.unwrap();
        let before = server.count(116);
        server.0.lock().unwrap().silent = vec![116];
        for _ in 0..100 {
            let file = file.clone();
            exec::spawn("reader", async move { assert_eq!(read(&file, 0, 7).await.unwrap(), b"content") });
        }
        settle().await;
        assert_eq!(server.count(116) - before, 64, "as many as there are tags");
        server.speak();
        settle().await;
        assert!(server.count(116) - before >= 164, "the held ones are asked twice");
    });
}

#[test]
fn options_that_would_not_be_honoured_are_refused() {
    for good in ["", "trans=virtio,version=9p2000.L,msize=4096,cache=none,access=any", "aname=/a,uname=me,cache=loose"]
    {
        assert!(Options::parse(good.as_bytes()).is_ok(), "{good}");
    }
    for bad in [
        "trans=tcp",
        "version=9p2000.u",
        "msize=4095",
        "msize=x",
        "access=user",
        "access=1000",
        "posixacl",
        "cache=fscache",
    ] {
        assert_eq!(Options::parse(bad.as_bytes()).err(), Some(Errno::EINVAL), "{bad}");
    }
    assert_eq!(Options::parse(b"msize=99999999").unwrap().msize, 512 * 1024);
}

#[test]
fn a_channel_has_one_session_at_a_time() {
    super::channel::register(b"tag-of-this-test".to_vec(), Server::new());
    let claim = Claim::of_tag(b"tag-of-this-test").ok().unwrap();
    assert_eq!(Claim::of_tag(b"tag-of-this-test").err(), Some(Errno::EBUSY));
    assert_eq!(Claim::of_tag(b"another tag").err(), Some(Errno::ENOENT));
    drop(claim);
    assert!(Claim::of_tag(b"tag-of-this-test").is_ok());
}
