//! The root file system: finding it, mounting it, and leaving it clean.

use alloc::string::String;

use super::cmdline::Cmdline;
use crate::errno::Errno;
use crate::fs::block::{self, Disk};
use crate::fs::{MountFlags, Path, ext2, mount};

/// Types that can be a root. Which it is, the disk says.
const TYPES: [&str; 3] = ["ext3", "ext2", "ext4"];

/// Mounts what `root=` names; the first disk if it names nothing.
pub async fn mount(line: &Cmdline) -> Result<Path, String> {
    let name = if line.root.is_empty() { "/dev/vda" } else { &line.root };
    let Some(disk) = name.strip_prefix("/dev/").and_then(block::find_by_name) else {
        let disks = block::disks();
        let known: alloc::vec::Vec<&str> = disks.iter().map(|disk| disk.name.as_str()).collect();
        return Err(format!("Cannot open root device \"{name}\": no such disk (there are: {})", known.join(" ")));
    };
    let types = line.root_fs_types.iter().map(String::as_str);
    if !line.root_fs_types.is_empty() && !types.clone().any(|ty| TYPES.contains(&ty)) {
        return Err(format!("No file system of rootfstype={} is known", line.root_fs_types.join(",")));
    }
    let fs = match mount_ext2(&disk, name, line.root_read_only).await {
        Err(Errno::EROFS) => mount_ext2(&disk, name, true).await,
        other => other,
    };
    let fs = fs.map_err(|errno| format!("Unable to mount root fs on \"{name}\": {errno:?}"))?;
    let mut flags = MountFlags::RELATIME;
    flags.set(MountFlags::RDONLY, fs.read_only());
    log::info!(
        "Mounted root {} ({} file system){}",
        name,
        fs.type_name(),
        if fs.read_only() { " read-only" } else { "" }
    );
    Ok(mount::mount_root(fs, flags))
}

async fn mount_ext2(
    disk: &Disk,
    name: &str,
    read_only: bool,
) -> crate::errno::Result<alloc::sync::Arc<dyn crate::fs::FileSystem>> {
    ext2::mount(block::claim(disk.id).await?, disk.id, name.as_bytes().to_vec(), read_only).await
}

/// Before power-off: everything is written and each file system marked clean.
pub async fn make_clean() {
    if let Err(errno) = mount::sync_all().await {
        log::error!("File systems could not be written: {errno:?}");
    }
    // The youngest first: it may be in a file of an older one.
    for fs in mount::file_systems().into_iter().rev() {
        if let Err(errno) = fs.set_read_only(true).await {
            log::error!("{} could not be made read-only: {errno:?}", fs.type_name());
        }
    }
}
