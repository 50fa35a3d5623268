//! A session with a server: tags, fids, and requests that may be given up.
//!
//! Up to [`TAGS`] requests are under way at a time. Who gives one up (a future that is dropped) leaves it to a task: a
//! request that makes a fid is seen to its end, any other is flushed, and its tag is used again when both replies are there
//! (flush(5) of Plan 9).
//!
//! A [`Fid`] is the server's name for a place in its tree. The last drop has it clunked by the session's task; its number
//! is used again when the server has agreed.
//!
//! Locks: spinlocks, all leaves.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::channel::{Claim, Exchange, Pending};
use super::wire::{HEADER, IO_HEADER, Kind, Message, Qid, RLERROR, Reader};
use crate::errno::{Errno, Result};
use crate::exec::{self, Notify, Semaphore};
use crate::sync::SpinLock;

/// Requests under way. A flush has the tag of what it flushes, plus so many.
const TAGS: u16 = 64;
const NO_TAG: u16 = 0xffff;
const NO_FID: u32 = 0xffff_ffff;
/// Fids in use; a server has less memory than this takes.
const FIDS_MAX: u32 = 1 << 24;
const VERSION: &[u8] = b"9P2000.L";
/// Smaller messages than this cannot carry what must be in one (Linux has the same limit).
pub const MSIZE_MIN: u32 = 4096;

pub struct Client {
    channel: Claim,
    /// Bytes of the longest message, in either direction.
    msize: AtomicU32,
    permits: Semaphore,
    /// Tags in use, a bit each.
    tags: SpinLock<u64>,
    fids: SpinLock<Fids>,
    clunks: Arc<Clunks>,
}

#[derive(Default)]
struct Fids {
    next: u32,
    free: Vec<u32>,
}

/// Fids that nobody uses any more. They keep their session until the server knows.
#[derive(Default)]
struct Clunks {
    queue: SpinLock<VecDeque<(Arc<Client>, u32)>>,
    news: Notify,
    over: AtomicBool,
}

/// A reply that says what was asked for.
pub struct Reply(Vec<u8>);

impl Reply {
    pub fn reader(&self) -> Reader<'_> {
        Reader::new(self.0.get(HEADER..).unwrap_or(&[]))
    }
}

impl Client {
    /// Begins a session. The server may want shorter messages.
    pub async fn begin(channel: Claim, msize: u32) -> Result<Arc<Client>> {
        let client = Arc::new(Client {
            channel,
            msize: AtomicU32::new(msize),
            permits: Semaphore::new(TAGS.into()),
            tags: SpinLock::new(0),
            fids: SpinLock::new(Fids::default()),
            clunks: Arc::new(Clunks::default()),
        });
        let message = Message::new(Kind::Version).u32(msize).text(VERSION);
        let (exchange, pending) = Exchange::new(message.finish(NO_TAG), vec![0; 64]);
        client.channel.submit(exchange);
        let reply = check(pending.await?, Kind::Version, NO_TAG)?;
        let mut reader = reply.reader();
        let (granted, version) = (reader.u32()?, reader.text()?);
        if version != VERSION {
            log::warn!("9p: the server does not speak 9P2000.L");
            return Err(Errno::EPROTONOSUPPORT);
        }
        if granted < MSIZE_MIN || granted > msize {
            return Err(Errno::EPROTO);
        }
        client.msize.store(granted, Ordering::Relaxed);
        exec::spawn("9p", client.clunks.clone().work());
        Ok(client)
    }

    /// The root of a tree of the server.
    pub async fn attach(self: &Arc<Self>, user: &[u8], tree: &[u8]) -> Result<(Arc<Fid>, Qid)> {
        let root = self.new_fid()?;
        // The user's number counts where the server makes files: they are the kernel's.
        let message = Message::new(Kind::Attach).u32(root.id).u32(NO_FID).text(user).text(tree).u32(0);
        let reply = self.call_for(message, 64, &root).await?;
        let qid = reply.reader().qid()?;
        Ok((root, qid))
    }

    pub fn msize(&self) -> u32 {
        self.msize.load(Ordering::Relaxed)
    }

    /// Bytes of data that fit into one message.
    pub fn io_max(&self) -> usize {
        self.msize() as usize - IO_HEADER
    }

    pub fn new_fid(self: &Arc<Self>) -> Result<Arc<Fid>> {
        let mut fids = self.fids.lock();
        let id = match fids.free.pop() {
            Some(id) => id,
            None if fids.next == FIDS_MAX => return Err(Errno::ENFILE),
            None => {
                fids.next += 1;
                fids.next - 1
            }
        };
        Ok(Arc::new(Fid { client: self.clone(), id, live: AtomicBool::new(false) }))
    }

    fn free_fid(&self, id: u32) {
        self.fids.lock().free.push(id);
    }

    /// Sends a request and waits for its reply, of `room` bytes at most behind the header.
    pub async fn call(self: &Arc<Self>, message: Message, room: usize) -> Result<Reply> {
        self.exchange(message, room, None).await
    }

    /// The same for a request that makes a fid.
    pub async fn call_for(self: &Arc<Self>, message: Message, room: usize, new: &Arc<Fid>) -> Result<Reply> {
        let result = self.exchange(message, room, Some(new.clone())).await;
        // If the answer makes no sense, it may have been made all the same.
        let made = matches!(result, Ok(_) | Err(Errno::EPROTO | Errno::EIO));
        new.live.store(made, Ordering::Relaxed);
        result
    }

    async fn exchange(self: &Arc<Self>, message: Message, room: usize, new: Option<Arc<Fid>>) -> Result<Reply> {
        let msize = self.msize() as usize;
        if message.len() > msize {
            return Err(Errno::EMSGSIZE);
        }
        // An error takes four bytes.
        let room = (HEADER + room.max(4)).min(msize);
        let mut reply = Vec::new();
        reply.try_reserve_exact(room).map_err(|_| Errno::ENOMEM)?;
        reply.resize(room, 0);
        self.permits.acquire(1).await;
        let tag = Tag::take(self);
        let (kind, number) = (message.kind, tag.number);
        let (exchange, pending) = Exchange::new(message.finish(number), reply);
        let mut waiting = Waiting { open: Some((tag, pending)), new };
        self.channel.submit(exchange);
        let result = waiting.wait().await;
        check(result?, kind, number)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.clunks.over.store(true, Ordering::Release);
        self.clunks.news.notify();
    }
}

/// Is it a reply to that request? What the server refused is its error number.
fn check(mut bytes: Vec<u8>, kind: Kind, tag: u16) -> Result<Reply> {
    let mut reader = Reader::new(&bytes);
    let (size, what, to) = (reader.u32()? as usize, reader.u8()?, reader.u16()?);
    if size < HEADER || size > bytes.len() || to != tag {
        return Err(Errno::EPROTO);
    }
    if what == RLERROR {
        return Err(Errno::from_raw(reader.u32()?.try_into().unwrap_or(0)).unwrap_or(Errno::EIO));
    }
    if what != kind as u8 + 1 {
        return Err(Errno::EPROTO);
    }
    bytes.truncate(size);
    Ok(Reply(bytes))
}

/// A tag in use, with the permit for it.
struct Tag {
    client: Arc<Client>,
    number: u16,
}

impl Tag {
    /// With a permit there is a free one.
    fn take(client: &Arc<Client>) -> Tag {
        let mut tags = client.tags.lock();
        let number = tags.trailing_ones() as u16 % TAGS;
        *tags |= 1 << number;
        Tag { client: client.clone(), number }
    }
}

impl Drop for Tag {
    fn drop(&mut self) {
        *self.client.tags.lock() &= !(1 << self.number);
        self.client.permits.release(1);
    }
}

/// A request that somebody waits for.
struct Waiting {
    open: Option<(Tag, Pending)>,
    /// The fid that the request makes.
    new: Option<Arc<Fid>>,
}

impl Waiting {
    async fn wait(&mut self) -> Result<Vec<u8>> {
        let Some((_, pending)) = &mut self.open else { return Err(Errno::EIO) };
        let result = pending.await;
        self.open = None;
        result
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some((tag, pending)) = self.open.take() {
            exec::spawn("9p", abandon(tag, pending, self.new.take()));
        }
    }
}

/// Nobody waits for the reply any more.
async fn abandon(tag: Tag, pending: Pending, new: Option<Arc<Fid>>) {
    if let Some(fid) = new {
        let _ = pending.await;
        // Perhaps it was not made; then the server refuses to let go of it, which does no harm.
        fid.live.store(true, Ordering::Relaxed);
        return;
    }
    let message = Message::new(Kind::Flush).u16(tag.number);
    let (exchange, flushed) = Exchange::new(message.finish(tag.number + TAGS), vec![0; 16]);
    tag.client.channel.submit(exchange);
    let _ = flushed.await;
    let _ = pending.await;
    drop(tag);
}

impl Clunks {
    /// Clunks what nobody uses, until the session is over.
    async fn work(self: Arc<Self>) {
        loop {
            let next = self.queue.lock().pop_front();
            let Some((client, id)) = next else {
                if self.over.load(Ordering::Acquire) {
                    return;
                }
                self.news.wait().await;
                continue;
            };
            // Whatever the server answers, the fid is gone (clunk(5) of Plan 9).
            let _ = client.call(Message::new(Kind::Clunk).u32(id), 0).await;
            client.free_fid(id);
        }
    }
}

/// A place in the server's tree, or an open file.
pub struct Fid {
    pub(super) client: Arc<Client>,
    pub(super) id: u32,
    /// The server knows it.
    live: AtomicBool,
}

impl Fid {
    /// The request to make it ended well, but without it.
    pub(super) fn was_not_made(&self) {
        self.live.store(false, Ordering::Relaxed);
    }

    /// Clunks it and answers what the server said: some errors of what was written come only then.
    pub async fn close(self: Arc<Self>) -> Result<()> {
        let message = Message::new(Kind::Clunk).u32(self.id);
        let result = self.client.exchange(message, 0, Some(self.clone())).await;
        // The server does not know it any more, whatever it answered.
        self.live.store(false, Ordering::Relaxed);
        result.map(drop)
    }
}

impl Drop for Fid {
    fn drop(&mut self) {
        if self.live.load(Ordering::Relaxed) {
            self.client.clunks.queue.lock().push_back((self.client.clone(), self.id));
            self.client.clunks.news.notify();
        } else {
            self.client.free_fid(self.id);
        }
    }
}
