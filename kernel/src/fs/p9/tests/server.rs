//! A server of 9P2000.L with a tree in memory, which can be made to lie, to fall silent and to be looked into.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::sync::Mutex;

use crate::errno::Errno;
use crate::fs::p9::channel::{Channel, Exchange};
use crate::fs::p9::wire::{HEADER, RLERROR, Reader};

pub const DIR: u32 = 0o040000;
pub const FILE: u32 = 0o100000;
pub const LINK: u32 = 0o120000;

#[derive(Clone, Default)]
pub struct Node {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u64,
    pub rdev: u64,
    pub data: Vec<u8>,
    /// Counts changes of the content; the change time, too.
    pub version: u64,
    pub names: BTreeMap<Vec<u8>, u64>,
    pub attributes: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Clone)]
enum Handle {
    Place(u64),
    Open(u64),
    Value(Vec<u8>),
    NewValue(u64, Vec<u8>, usize, Vec<u8>),
}

/// What happens to a reply before it is sent.
pub type Tamper = fn(request: u8, reply: &mut Vec<u8>);

#[derive(Default)]
pub struct State {
    pub nodes: BTreeMap<u64, Node>,
    next: u64,
    fids: BTreeMap<u32, Handle>,
    pub msize: u32,
    pub tamper: Option<Tamper>,
    /// Types of requests that are not answered until they are flushed or let go.
    pub silent: Vec<u8>,
    held: Vec<Exchange>,
    /// Types of the requests so far.
    pub seen: Vec<u8>,
    /// The longest request and the longest answer so far.
    pub longest: usize,
}

pub struct Server(pub Mutex<State>);

type Answer = Result<Vec<u8>, Errno>;

impl Server {
    pub fn new() -> Arc<Server> {
        let root = Node { mode: DIR | 0o755, nlink: 2, ..Node::default() };
        let state = State { nodes: [(1, root)].into(), next: 2, msize: 8192, ..State::default() };
        Arc::new(Server(Mutex::new(state)))
    }

    pub fn count(&self, kind: u8) -> usize {
        self.0.lock().unwrap().seen.iter().filter(|seen| **seen == kind).count()
    }

    pub fn fids(&self) -> usize {
        self.0.lock().unwrap().fids.len()
    }

    /// A change that the client does not know of.
    pub fn put(&self, name: &[u8], data: &[u8]) {
        let mut state = self.0.lock().unwrap();
        let known = state.nodes.get(&1).unwrap().names.get(name).copied();
        let number = known.unwrap_or_else(|| state.add(1, name, FILE | 0o644, 0));
        let node = state.nodes.get_mut(&number).unwrap();
        node.data = data.to_vec();
        node.version += 1;
    }

    /// What the file holds.
    pub fn get(&self, name: &[u8]) -> Option<Vec<u8>> {
        let state = self.0.lock().unwrap();
        let number = state.nodes.get(&1).unwrap().names.get(name)?;
        Some(state.nodes.get(number)?.data.clone())
    }

    /// Answers what it has kept silent about.
    pub fn speak(&self) {
        let held = {
            let mut state = self.0.lock().unwrap();
            state.silent.clear();
            core::mem::take(&mut state.held)
        };
        held.into_iter().for_each(|exchange| self.submit(exchange));
    }
}

impl Channel for Server {
    fn submit(&self, mut exchange: Exchange) {
        let mut state = self.0.lock().unwrap();
        let kind = exchange.request[4];
        state.seen.push(kind);
        state.longest = state.longest.max(exchange.request.len()).max(exchange.reply.len());
        if state.silent.contains(&kind) {
            state.held.push(exchange);
            return;
        }
        let mut flushed = None;
        if kind == 108 {
            // What was flushed gets no reply: the channel gives its buffers back empty.
            let old = [exchange.request[7], exchange.request[8]];
            let at = state.held.iter().position(|held| held.request[5..7] == old);
            flushed = at.map(|at| state.held.remove(at));
        }
        let answer = state.answer(kind, &exchange.request[HEADER..]);
        let (what, body) = match answer {
            Ok(body) => (kind + 1, body),
            Err(errno) => (RLERROR, errno.get().to_le_bytes().to_vec()),
        };
        let mut reply = ((HEADER + body.len()) as u32).to_le_bytes().to_vec();
        reply.push(what);
        reply.extend_from_slice(&exchange.request[5..7]);
        reply.extend_from_slice(&body);
        if let Some(tamper) = state.tamper {
            tamper(kind, &mut reply);
        }
        drop(state);
        let len = reply.len().min(exchange.reply.len());
        exchange.reply[..len].copy_from_slice(&reply[..len]);
        if let Some(flushed) = flushed {
            flushed.complete(Ok(0));
        }
        exchange.complete(Ok(len));
    }
}

fn text(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u16).to_le_bytes()[..], text].concat()
}

fn counted(data: &[u8]) -> Vec<u8> {
    [&(data.len() as u32).to_le_bytes()[..], data].concat()
}

impl State {
    fn add(&mut self, dir: u64, name: &[u8], mode: u32, gid: u32) -> u64 {
        let number = self.next;
        self.next += 1;
        let nlink = if mode & DIR == DIR { 2 } else { 1 };
        self.nodes.insert(number, Node { mode, gid, nlink, uid: 7, ..Node::default() });
        self.nodes.get_mut(&dir).unwrap().names.insert(name.to_vec(), number);
        number
    }

    fn qid(&self, number: u64) -> Vec<u8> {
        let node = &self.nodes[&number];
        let kind = match node.mode & 0o170000 {
            DIR => 0x80,
            LINK => 2,
            _ => 0,
        };
        [&[kind][..], &(node.version as u32).to_le_bytes(), &number.to_le_bytes()].concat()
    }

    fn place(&self, fid: u32) -> Result<u64, Errno> {
        match self.fids.get(&fid) {
            Some(Handle::Place(number) | Handle::Open(number)) => Ok(*number),
            _ => Err(Errno::EBADF),
        }
    }

    fn node(&mut self, fid: u32) -> Result<&mut Node, Errno> {
        let number = self.place(fid)?;
        self.nodes.get_mut(&number).ok_or(Errno::ENOENT)
    }

    fn child(&self, dir: u64, name: &[u8]) -> Result<u64, Errno> {
        self.nodes.get(&dir).and_then(|node| node.names.get(name)).copied().ok_or(Errno::ENOENT)
    }

    fn lose(&mut self, number: u64) {
        // An open file stays, a name less.
        let node = self.nodes.get_mut(&number).unwrap();
        node.nlink -= if node.mode & DIR == DIR { 2 } else { 1 };
    }

    fn answer(&mut self, kind: u8, request: &[u8]) -> Answer {
        let mut r = Reader::new(request);
        match kind {
            100 => {
                self.fids.clear();
                self.msize = self.msize.min(r.u32()?);
                Ok([&self.msize.to_le_bytes()[..], &text(b"9P2000.L")].concat())
            }
            104 => {
                self.fids.insert(r.u32()?, Handle::Place(1));
                Ok(self.qid(1))
            }
            110 => self.walk(r.u32()?, r.u32()?, r.u16()?, &mut r),
            108 => Ok(Vec::new()),
            120 => self.clunk(r.u32()?),
            24 => self.getattr(r.u32()?),
            26 => self.setattr(&mut r),
            12 => {
                let fid = r.u32()?;
                let number = self.place(fid)?;
                self.fids.insert(fid, Handle::Open(number));
                Ok([self.qid(number), vec![0; 4]].concat())
            }
            14 | 16 | 18 | 72 => self.create(kind, &mut r),
            70 => {
                let (dir, target) = (r.u32()?, r.u32()?);
                let (name, number) = (r.text()?.to_vec(), self.place(target)?);
                self.nodes.get_mut(&number).unwrap().nlink += 1;
                self.node(dir)?.names.insert(name, number);
                Ok(Vec::new())
            }
            74 => {
                let (from, old) = (self.place(r.u32()?)?, r.text()?.to_vec());
                let (to, new) = (self.place(r.u32()?)?, r.text()?.to_vec());
                let number = self.child(from, &old)?;
                self.nodes.get_mut(&from).unwrap().names.remove(&old);
                if let Some(lost) = self.nodes.get_mut(&to).unwrap().names.insert(new, number) {
                    self.lose(lost);
                }
                Ok(Vec::new())
            }
            76 => {
                let (dir, name) = (self.place(r.u32()?)?, r.text()?.to_vec());
                let number = self.child(dir, &name)?;
                if !self.nodes[&number].names.is_empty() {
                    return Err(Errno::ENOTEMPTY);
                }
                self.nodes.get_mut(&dir).unwrap().names.remove(&name);
                self.lose(number);
                Ok(Vec::new())
            }
            22 => Ok(text(&self.node(r.u32()?)?.data.clone())),
            116 => self.read(&mut r),
            118 => self.write(&mut r),
            40 => self.readdir(&mut r),
            50 => self.place(r.u32()?).map(|_| Vec::new()),
            8 => Ok([&0x1234u32.to_le_bytes()[..], &4096u32.to_le_bytes(), &[1; 48], &255u32.to_le_bytes()].concat()),
            30 => self.attribute(&mut r),
            32 => {
                let fid = r.u32()?;
                let (number, name, size) = (self.place(fid)?, r.text()?.to_vec(), r.u64()? as usize);
                self.fids.insert(fid, Handle::NewValue(number, name, size, Vec::new()));
                Ok(Vec::new())
            }
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn walk(&mut self, fid: u32, new: u32, count: u16, r: &mut Reader<'_>) -> Answer {
        let mut at = self.place(fid)?;
        let mut qids = Vec::new();
        for _ in 0..count {
            at = self.child(at, r.text()?)?;
            qids.extend(self.qid(at));
        }
        let old = self.fids.insert(new, Handle::Place(at));
        assert!(old.is_none() || self.tamper.is_some(), "fid {new} is in use");
        Ok([&count.to_le_bytes()[..], &qids].concat())
    }

    fn clunk(&mut self, fid: u32) -> Answer {
        match self.fids.remove(&fid).ok_or(Errno::EBADF)? {
            Handle::NewValue(number, name, size, value) => {
                let attributes = &mut self.nodes.get_mut(&number).unwrap().attributes;
                if size == 0 {
                    attributes.remove(&name).ok_or(Errno::ENODATA)?;
                } else if value.len() == size {
                    attributes.insert(name, value);
                } else {
                    return Err(Errno::EINVAL);
                }
                Ok(Vec::new())
            }
            _ => Ok(Vec::new()),
        }
    }

    fn getattr(&mut self, fid: u32) -> Answer {
        let number = self.place(fid)?;
        let node = self.nodes.get(&number).filter(|node| node.nlink > 0).ok_or(Errno::ENOENT)?;
        let mut out = 0x7ffu64.to_le_bytes().to_vec();
        out.extend(self.qid(number));
        for word in [node.mode, node.uid, node.gid] {
            out.extend(word.to_le_bytes());
        }
        let size = node.data.len() as u64;
        for word in [node.nlink, node.rdev, size, 4096, size.div_ceil(512), 1, 0, node.version, 5, 3, 0, 0, 0, 0, 0] {
            out.extend(word.to_le_bytes());
        }
        Ok(out)
    }

    fn setattr(&mut self, r: &mut Reader<'_>) -> Answer {
        let (fid, valid) = (r.u32()?, r.u32()?);
        let (mode, uid, gid, size) = (r.u32()?, r.u32()?, r.u32()?, r.u64()?);
        let node = self.node(fid)?;
        if valid & 1 != 0 {
            node.mode = node.mode & 0o170000 | mode;
        }
        if valid & 2 != 0 {
            node.uid = uid;
        }
        if valid & 4 != 0 {
            node.gid = gid;
        }
        if valid & 8 != 0 {
            node.data.resize(size as usize, 0);
            node.version += 1;
        }
        Ok(Vec::new())
    }

    fn create(&mut self, kind: u8, r: &mut Reader<'_>) -> Answer {
        let fid = r.u32()?;
        let (dir, name) = (self.place(fid)?, r.text()?.to_vec());
        if self.child(dir, &name).is_ok() {
            return Err(Errno::EEXIST);
        }
        let (mode, target) = match kind {
            14 => (r.u32().and_then(|_| r.u32())? | FILE, Vec::new()),
            16 => (LINK | 0o777, r.text()?.to_vec()),
            18 => (r.u32()?, Vec::new()),
            _ => (r.u32()? | DIR, Vec::new()),
        };
        let number = self.add(dir, &name, mode, 0);
        self.nodes.get_mut(&number).unwrap().data = target;
        if kind == 14 {
            self.fids.insert(fid, Handle::Open(number));
        }
        Ok([self.qid(number), vec![0; 4]].concat())
    }

    fn read(&mut self, r: &mut Reader<'_>) -> Answer {
        let (fid, offset, count) = (r.u32()?, r.u64()? as usize, r.u32()? as usize);
        let data = match self.fids.get(&fid) {
            Some(Handle::Open(number)) => &self.nodes[number].data,
            Some(Handle::Value(value)) => value,
            _ => return Err(Errno::EBADF),
        };
        let rest = data.get(offset..).unwrap_or(&[]);
        Ok(counted(&rest[..rest.len().min(count)]))
    }

    fn write(&mut self, r: &mut Reader<'_>) -> Answer {
        let (fid, offset, count) = (r.u32()?, r.u64()? as usize, r.u32()? as usize);
        let data = r.bytes(count)?;
        match self.fids.get_mut(&fid) {
            Some(Handle::Open(number)) => {
                let node = self.nodes.get_mut(number).unwrap();
                node.data.resize(node.data.len().max(offset + count), 0);
                node.data[offset..offset + count].copy_from_slice(data);
                node.version += 1;
            }
            Some(Handle::NewValue(_, _, _, value)) => value.extend_from_slice(data),
            _ => return Err(Errno::EBADF),
        }
        Ok((count as u32).to_le_bytes().to_vec())
    }

    fn readdir(&mut self, r: &mut Reader<'_>) -> Answer {
        let (fid, offset, count) = (r.u32()?, r.u64()?, r.u32()? as usize);
        let Some(Handle::Open(number)) = self.fids.get(&fid) else { return Err(Errno::EBADF) };
        let number = *number;
        let mut names = vec![(b".".to_vec(), number), (b"..".to_vec(), number)];
        names.extend(self.nodes[&number].names.iter().map(|(name, number)| (name.clone(), *number)));
        let mut out = Vec::new();
        for (index, (name, number)) in names.into_iter().enumerate().skip(offset as usize) {
            let kind = [(self.nodes[&number].mode >> 12) as u8];
            let entry = [&self.qid(number)[..], &(index as u64 + 1).to_le_bytes(), &kind, &text(&name)].concat();
            if out.len() + entry.len() > count {
                break;
            }
            out.extend(entry);
        }
        Ok(counted(&out))
    }

    fn attribute(&mut self, r: &mut Reader<'_>) -> Answer {
        let (fid, new) = (r.u32()?, r.u32()?);
        let name = r.text()?.to_vec();
        let attributes = &self.node(fid)?.attributes;
        let value = if name.is_empty() {
            attributes.keys().flat_map(|key| [key, &b"\0"[..]].concat()).collect()
        } else {
            attributes.get(&name).cloned().ok_or(Errno::ENODATA)?
        };
        let size = (value.len() as u64).to_le_bytes().to_vec();
        self.fids.insert(new, Handle::Value(value));
        Ok(size)
    }
}
