//! Servers that break the protocol: every call ends with an error or an answer, and nothing else happens.

use super::*;
use crate::mm::test_util::Rng;

/// What a mount does on a server that may lie at any time. Answers do not matter, ends do.
async fn exercise(fs: &Arc<P9Fs>) {
    let root = fs.root();
    let _ = fs.refresh().await;
    let _ = root.create(b"dir", NewNode::Directory, ATTR).await;
    let _ = root.create(b"link", NewNode::Symlink(b"target"), ATTR).await;
    if let Ok(link) = root.lookup(b"link").await {
        let _ = link.read_link().await;
    }
    if let Ok(file) = root.create(b"file", NewNode::Regular, ATTR).await {
        let _ = write(&file, 0, &[b'x'; 20_000]).await;
        let _ = read(&file, 0, 30_000).await;
        let _ = file.set_xattr(b"user.a", b"value", 0).await;
        let _ = file.get_xattr(b"user.a").await;
        let _ = file.list_xattr().await;
        let _ = file.sync(false).await;
        if let Some(cache) = file.page_cache() {
            let _ = cache.get(0, file.size()).await;
        }
        let _ = root.rename(b"file", &file, &root, b"other", None, NO_FLAGS).await;
        let _ = root.unlink(b"other", &file).await;
    }
    let mut names = Names { names: Vec::new(), room: 100, next: 0 };
    let _ = root.read_dir(0, &mut names).await;
}

#[test]
fn any_reply_may_be_damaged() {
    for seed in 1..300 {
        let server = Server::new();
        run(async move {
            let Ok(fs) = try_mount(&server, b"").await else { panic!("an honest server refused") };
            server.0.lock().unwrap().tamper = Some(|_, _| ());
            let mut rng = Rng(seed);
            for _ in 0..3 {
                // The hook has no state of its own: the damage is chosen here.
                server.0.lock().unwrap().tamper = Some(match rng.below(8) {
                    0 => |_, reply| reply.truncate(reply.len() / 2),
                    1 => |_, reply| reply.truncate(3),
                    2 => |kind, reply| reply.iter_mut().skip(7).for_each(|byte| *byte ^= kind),
                    3 => |_, reply| reply.iter_mut().skip(7).for_each(|byte| *byte = 0xff),
                    4 => |_, reply| reply.iter_mut().skip(7).step_by(3).for_each(|byte| *byte = byte.wrapping_add(1)),
                    5 => |_, reply| reply[0] = 0xff,
                    6 => |kind, reply| reply[4] = kind,
                    _ => |_, reply| reply[5] ^= 1,
                });
                exercise(&fs).await;
            }
            server.0.lock().unwrap().tamper = None;
            exercise(&fs).await;
        });
    }
}

async fn error_with(tamper: server::Tamper) -> (Option<Errno>, Option<Errno>, Option<Errno>) {
    let server = Server::new();
    server.put(b"file", b"content");
    let (_fs, root) = mounted(&server).await;
    let file = root.lookup(b"file").await.unwrap();
    file.refresh().await.unwrap();
    server.0.lock().unwrap().tamper = Some(tamper);
    (root.lookup(b"file").await.err(), read(&file, 0, 7).await.err(), write(&file, 0, b"x").await.err())
}

#[test]
fn what_does_not_fit_the_request_is_an_error_of_protocol() {
    run(async move {
        let proto = Some(Errno::EPROTO);
        // Another tag; another type; longer than what came.
        assert_eq!(error_with(|_, reply| reply[5] ^= 1).await, (proto, proto, proto));
        assert_eq!(error_with(|_, reply| reply[4] ^= 0x40).await, (proto, proto, proto));
        assert_eq!(error_with(|_, reply| reply[0] = 0xf0).await, (proto, proto, proto));
        // More data than was asked for, more qids than names, more written than sent.
        let more = |kind: u8, reply: &mut Vec<u8>| {
            if matches!(kind, 116 | 110 | 118) && reply[4] == kind + 1 {
                reply[7] = reply[7].wrapping_add(100);
            }
        };
        assert_eq!(error_with(more).await, (proto, proto, proto));
        // Numbers that are no error numbers.
        let strange = |_: u8, reply: &mut Vec<u8>| {
            reply.clear();
            reply.extend_from_slice(&[11, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0x80]);
        };
        let io = Some(Errno::EIO);
        assert_eq!(error_with(strange).await, (io, io, io));
        // And one that is.
        let quota = |_: u8, reply: &mut Vec<u8>| {
            reply.clear();
            reply.extend_from_slice(&[11, 0, 0, 0, 7, 0, 0, 122, 0, 0, 0]);
        };
        let quota_error = Some(Errno::EDQUOT);
        assert_eq!(error_with(quota).await, (quota_error, quota_error, quota_error));
    });
}

#[test]
fn a_server_that_speaks_another_language_is_not_mounted() {
    run(async move {
        for (tamper, errno) in [
            (
                (|kind, reply| {
                    if kind == 100 {
                        reply[13] = b'X'
                    }
                }) as server::Tamper,
                Errno::EPROTONOSUPPORT,
            ),
            (
                |kind, reply| {
                    if kind == 100 {
                        reply[7..11].copy_from_slice(&[0xff; 4])
                    }
                },
                Errno::EPROTO,
            ),
            (
                |kind, reply| {
                    if kind == 100 {
                        reply[7..11].copy_from_slice(&[0, 1, 0, 0])
                    }
                },
                Errno::EPROTO,
            ),
            (
                |kind, reply| {
                    if kind == 100 {
                        reply.clear()
                    }
                },
                Errno::EPROTO,
            ),
        ] {
            let server = Server::new();
            server.0.lock().unwrap().tamper = Some(tamper);
            assert_eq!(try_mount(&server, b"").await.err(), Some(errno));
        }
    });
}

#[test]
fn names_that_no_directory_can_have_are_not_believed() {
    let server = Server::new();
    run(async move {
        let (_fs, root) = mounted(&server).await;
        for name in [&b"a/b"[..], b"", b"a\0b", &[b'x'; 300]] {
            let number = {
                let mut state = server.0.lock().unwrap();
                state.nodes.get_mut(&1).unwrap().names = [(name.to_vec(), 1)].into();
                state.nodes.len()
            };
            assert_eq!(number, 1);
            let mut names = Names { names: Vec::new(), room: 100, next: 0 };
            assert_eq!(root.read_dir(0, &mut names).await, Err(Errno::EPROTO), "{name:?}");
        }
    });
}
