//! From the options of mount(2) to an instance.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicU64};

use super::inode::{Lower, OverlayInode, Parts};
use super::lookup::Reading;
use super::options::{Options, unescape};
use super::table::Table;
use super::work::{Work, locked_child, remove_tree};
use super::{Layer, OverlayFs, Upper};
use crate::errno::{Errno, Result};
use crate::exec::Mutex;
use crate::fs::dentry::Dentry;
use crate::fs::inode::{DeviceId, FileSystem, NewAttr, NewNode};
use crate::fs::inode_flags::InodeFlags;
use crate::fs::path::Path;
use crate::fs::tmpfs::anonymous_device;
use crate::fs::walk::{self, AT_FDCWD, Ctx, Flags};
use crate::fs::{MountRequest, names};
use crate::process::Credentials;
use crate::sync::Once;

/// Overlays on top of each other at most, as on Linux.
const DEPTH_MAX: usize = 2;

/// Where changes are to go.
struct UpperPlace {
    upper: Path,
    work: Path,
}

pub async fn mount(request: MountRequest<'_>) -> Result<Arc<dyn FileSystem>> {
    let options = Options::parse(request.data)?;
    let lower_paths = options.lower_paths()?;
    let upper = match &options.upper {
        Some(upper) => Some(upper_place(request.ctx, upper, options.work.as_deref()).await?),
        None => None,
    };
    let mut lower = Vec::new();
    for path in &lower_paths {
        lower.push(directory(request.ctx, path).await?);
    }
    check_overlaps(upper.as_ref(), &lower)?;
    let depth = 1 + lower.iter().map(|place| depth_of(place.mount.fs())).max().unwrap_or(0);
    if depth > DEPTH_MAX {
        return Err(Errno::EINVAL);
    }
    let mounter = request.ctx.creds;
    let mut groups = Groups::default();
    let upper = match upper {
        Some(place) => Some(groups.upper(&place, mounter).await?),
        None => None,
    };
    let lower: Vec<Layer> = lower.into_iter().map(|place| groups.layer(&place)).collect();
    let fs = Arc::new_cyclic(|this| OverlayFs {
        source: request.source.to_vec(),
        options,
        device: anonymous_device(),
        one_file_system: groups.systems.len() == 1,
        devices: groups.devices,
        upper,
        lower,
        depth,
        mounter: mounter.clone(),
        root: Once::new(),
        table: Table::default(),
        next_ino: AtomicU64::new(1),
        read_only: AtomicBool::new(false),
        rename_lock: Mutex::new(()),
        moving: Mutex::new(()),
        this: this.clone(),
    });
    let root = make_root(&fs).await?;
    fs.root.call_once(|| root);
    Ok(fs)
}

/// All layers of it are merged, whether they are opaque or not.
async fn make_root(fs: &OverlayFs) -> Result<Arc<OverlayInode>> {
    let upper = fs.upper.as_ref().map(|upper| upper.layer.root.clone());
    let impure = match &upper {
        Some(upper) => fs.is_impure(upper).await?,
        None => false,
    };
    let lower = fs.lower.iter().map(|layer| Lower { dentry: layer.root.clone(), group: layer.group }).collect();
    let bound = InodeFlags::empty();
    OverlayInode::new(fs, Parts { upper, lower, number: None, place: None, impure, bound }).ok_or(Errno::EINVAL)
}

async fn directory(ctx: Ctx<'_>, path: &[u8]) -> Result<Path> {
    let place = walk::lookup(ctx, AT_FDCWD, path, Flags::FOLLOW).await?;
    if place.dentry.is_dir() { Ok(place) } else { Err(Errno::EINVAL) }
}

async fn upper_place(ctx: Ctx<'_>, upper: &[u8], work: Option<&[u8]>) -> Result<UpperPlace> {
    let work = work.ok_or(Errno::EINVAL)?;
    let upper = directory(ctx, &unescape(upper)).await?;
    // What others change, too, cannot take changes in one step.
    if depth_of(upper.mount.fs()) > 0 || upper.dentry.is_shared() || upper.mount.check_writable().is_err() {
        return Err(Errno::EINVAL);
    }
    let work = directory(ctx, &unescape(work)).await?;
    let apart = !upper.dentry.is_ancestor_of(&work.dentry) && !work.dentry.is_ancestor_of(&upper.dentry);
    if !Arc::ptr_eq(&upper.mount, &work.mount) || !apart {
        return Err(Errno::EINVAL);
    }
    Ok(UpperPlace { upper, work })
}

/// No layer twice, and no lower layer within another or within the work directory: ELOOP.
fn check_overlaps(upper: Option<&UpperPlace>, lower: &[Path]) -> Result<()> {
    let mut roots: Vec<&Arc<Dentry>> = lower.iter().map(|place| &place.dentry).collect();
    roots.extend(upper.iter().flat_map(|place| [&place.upper.dentry, &place.work.dentry]));
    let address = |dentry: &Arc<Dentry>| Arc::as_ptr(dentry.inode()).cast::<()>().addr();
    let mut addresses: Vec<usize> = roots.iter().map(|root| address(root)).collect();
    addresses.sort_unstable();
    if addresses.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
        return Err(Errno::ELOOP);
    }
    for place in lower {
        let mut above = place.dentry.parent();
        while let Some(dentry) = above {
            if addresses.binary_search(&address(&dentry)).is_ok() {
                return Err(Errno::ELOOP);
            }
            above = dentry.parent();
        }
    }
    Ok(())
}

/// How many overlays there are in this file system.
fn depth_of(fs: &Arc<dyn FileSystem>) -> usize {
    let fs: &dyn Any = &**fs;
    fs.downcast_ref::<OverlayFs>().map_or(0, |overlay| overlay.depth)
}

/// The file systems of the layers, each with a device of its own. The first place is the upper layer's.
struct Groups {
    systems: Vec<(Arc<dyn FileSystem>, usize)>,
    devices: Vec<DeviceId>,
}

impl Default for Groups {
    fn default() -> Self {
        Groups { systems: Vec::new(), devices: vec![anonymous_device()] }
    }
}

impl Groups {
    async fn upper(&mut self, place: &UpperPlace, mounter: &Credentials) -> Result<Upper> {
        let fs = place.upper.mount.fs().clone();
        self.systems.push((fs.clone(), 0));
        let dir = work_directory(&place.work.dentry, mounter).await?;
        let work = Work::new(fs, dir, (mounter.fsuid, mounter.fsgid));
        Ok(Upper { layer: self.layer(&place.upper), work })
    }

    fn layer(&mut self, place: &Path) -> Layer {
        let fs = place.mount.fs();
        let known = self.systems.iter().find(|(system, _)| Arc::ptr_eq(system, fs)).map(|(_, group)| *group);
        let group = known.unwrap_or_else(|| {
            self.devices.push(anonymous_device());
            self.systems.push((fs.clone(), self.devices.len() - 1));
            self.devices.len() - 1
        });
        Layer { instance: place.mount.instance().clone(), root: place.dentry.clone(), group }
    }
}

/// An empty directory "work" within `base`, for the overlay alone. What an earlier mount has left goes, unless it says that the
/// upper layer may not be sound.
async fn work_directory(base: &Arc<Dentry>, mounter: &Credentials) -> Result<Arc<Dentry>> {
    const NAME: &[u8] = b"work";
    let guard = base.inode().state().lock.lock().await;
    let there = locked_child(base, NAME).await?;
    drop(guard);
    if let Some(old) = there {
        check_sound(&old).await?;
        remove_tree(base, old).await?;
    }
    let _guard = base.inode().state().lock.lock().await;
    if base.is_dead() {
        return Err(Errno::ENOENT);
    }
    if locked_child(base, NAME).await?.is_some() {
        return Err(Errno::EBUSY);
    }
    let attr = NewAttr { perm: 0, uid: mounter.fsuid, gid: mounter.fsgid };
    names::make(base, NAME, NewNode::Directory, attr).await
}

/// "incompat/volatile" is left by a mount with the option volatile that did not end.
async fn check_sound(work: &Arc<Dentry>) -> Result<()> {
    if !work.is_dir() {
        return Ok(());
    }
    let guard = work.inode().state().lock.lock().await;
    let features = locked_child(work, b"incompat").await?;
    drop(guard);
    match features.filter(|features| features.is_dir()) {
        Some(features) if !Reading::of(features.inode()).more().await?.is_empty() => Err(Errno::EINVAL),
        _ => Ok(()),
    }
}
