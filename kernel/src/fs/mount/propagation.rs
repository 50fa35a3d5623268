//! How mounts share what is mounted in them (mount_namespaces(7), "Shared subtrees"): peers of one group, whose number
//! mountinfo shows as `shared:N`; those that only receive (`master:N`); private ones; and those that cannot be bound.
//!
//! Types and groups are kept, shown, and handed on to copies and to what is mounted in shared mounts; but what is mounted in a
//! mount is not mounted in its peers, too.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::super::procfs::text::{Text, put};
use super::Mount;
use crate::errno::{Errno, Result};
use crate::exec::budget;
use crate::sync::SpinLock;

/// MS_SHARED and its like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Type {
    Shared,
    Slave,
    Private,
    Unbindable,
}

/// What one mount has. The numbers of groups count from 1; 0 is none.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Propagation {
    pub group: u32,
    pub master: u32,
    pub unbindable: bool,
}

/// Changed under the lock of [`GROUPS`] only.
#[derive(Default)]
pub(super) struct Share(SpinLock<Propagation>);

/// In use as long as it has members, or mounts that receive from it: these receive from its own master when the members are gone.
#[derive(Default)]
struct Group {
    members: u32,
    /// Mounts, and groups without members, whose master it is.
    served: u32,
    /// Of one that has no members any more.
    master: u32,
}

struct Groups {
    /// By number, less one; those that nobody uses are free.
    list: Vec<Group>,
    /// None below is free.
    first_free: usize,
}

static GROUPS: SpinLock<Groups> = SpinLock::new(Groups { list: Vec::new(), first_free: 0 });

impl Groups {
    fn get(&mut self, number: u32) -> Option<&mut Group> {
        self.list.get_mut((number as usize).checked_sub(1)?)
    }

    /// A group with one member, of the lowest number that is free.
    fn add(&mut self) -> Result<u32> {
        while self.list.get(self.first_free).is_some_and(|group| group.members + group.served > 0) {
            self.first_free += 1;
        }
        if self.first_free == self.list.len() {
            self.list.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            self.list.push(Group::default());
        }
        self.first_free += 1;
        let number = self.first_free as u32;
        if let Some(group) = self.get(number) {
            group.members = 1;
        }
        Ok(number)
    }

    /// One member less, which had this master. Answers whether others are left.
    fn leave(&mut self, number: u32, master: u32) -> bool {
        let Some(group) = self.get(number) else { return false };
        group.members -= 1;
        if group.members > 0 {
            return true;
        }
        if group.served > 0 {
            group.master = master;
            self.serve(master);
        } else {
            self.free(number);
        }
        false
    }

    fn free(&mut self, number: u32) {
        self.first_free = self.first_free.min(number as usize - 1);
    }

    fn serve(&mut self, master: u32) {
        if let Some(group) = self.get(master) {
            group.served += 1;
        }
    }

    /// One that received from it does not any more.
    fn desert(&mut self, mut number: u32) {
        while let Some(group) = self.get(number) {
            group.served -= 1;
            if group.members + group.served > 0 {
                return;
            }
            let next = core::mem::take(&mut group.master);
            self.free(number);
            number = next;
        }
    }

    /// What a mount has, when those who are gone are left out.
    fn settle(&mut self, share: &Share) -> Propagation {
        let mut now = *share.0.lock();
        let mut master = now.master;
        while let Some(group) = self.get(master).filter(|group| group.members == 0) {
            master = group.master;
        }
        if master != now.master {
            self.serve(master);
            self.desert(now.master);
            now.master = master;
            *share.0.lock() = now;
        }
        now
    }

    /// Leaves its group; where others stay, it receives from them.
    fn make_slave(&mut self, share: &Share) {
        let Propagation { group, master, .. } = self.settle(share);
        share.0.lock().group = 0;
        if group != 0 && self.leave(group, master) {
            self.desert(master);
            self.serve(group);
            share.0.lock().master = group;
        }
    }

    fn make_private(&mut self, share: &Share) {
        self.make_slave(share);
        let master = core::mem::take(&mut share.0.lock().master);
        self.desert(master);
    }
}

impl Mount {
    pub(super) fn propagation(&self) -> Propagation {
        let now = *self.share.0.lock();
        if now.master == 0 { now } else { GROUPS.lock().settle(&self.share) }
    }

    pub(super) fn is_shared(&self) -> bool {
        self.share.0.lock().group != 0
    }

    pub(super) fn is_unbindable(&self) -> bool {
        self.share.0.lock().unbindable
    }

    /// A copy is a peer of what it is a copy of, and receives from the same master.
    pub(super) fn join_group_of(&self, other: &Mount) {
        let mut groups = GROUPS.lock();
        let new = groups.settle(&other.share);
        if let Some(group) = groups.get(new.group) {
            group.members += 1;
        }
        groups.serve(new.master);
        *self.share.0.lock() = new;
    }

    /// Nothing is shared by it any more: it has left the namespace.
    pub(super) fn leave_group(&self) {
        if self.propagation() != Propagation::default() {
            self.set_type(Type::Private);
        }
    }

    fn set_type(&self, new: Type) {
        let mut groups = GROUPS.lock();
        match new {
            Type::Shared => {}
            Type::Slave => return groups.make_slave(&self.share),
            Type::Private | Type::Unbindable => groups.make_private(&self.share),
        }
        self.share.0.lock().unbindable = new == Type::Unbindable;
    }
}

/// Gives all of them a type, or none: ENOMEM. For who holds [`super::CHANGES`].
pub(super) async fn set_types(mounts: &[Arc<Mount>], new: Type) -> Result<()> {
    let groups = if new == Type::Shared { new_groups(mounts)? } else { Vec::new() };
    let mut groups = groups.into_iter();
    for mount in mounts {
        if new == Type::Shared && !mount.is_shared() {
            mount.share.0.lock().group = groups.next().unwrap_or(0);
        }
        mount.set_type(new);
        // New groups must not be left over.
        if new != Type::Shared {
            budget().await;
        }
    }
    Ok(())
}

/// A group for each that has none.
fn new_groups(mounts: &[Arc<Mount>]) -> Result<Vec<u32>> {
    let wanted = mounts.iter().filter(|mount| !mount.is_shared()).count();
    let mut made = Vec::new();
    made.try_reserve_exact(wanted).map_err(|_| Errno::ENOMEM)?;
    for _ in 0..wanted {
        let group = GROUPS.lock().add();
        match group {
            Ok(group) => made.push(group),
            Err(errno) => {
                let mut groups = GROUPS.lock();
                for group in made {
                    groups.leave(group, 0);
                }
                return Err(errno);
            }
        }
    }
    Ok(made)
}

/// The optional fields of mountinfo.
pub(super) fn show(propagation: Propagation, out: &mut Text) {
    let Propagation { group, master, unbindable } = propagation;
    for (name, number) in [("shared", group), ("master", master)] {
        if number != 0 {
            put!(out, " {name}:{number}");
        }
    }
    if unbindable {
        out.bytes(b" unbindable");
    }
}
