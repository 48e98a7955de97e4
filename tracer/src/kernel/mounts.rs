//! Files of a kernel filesystem that need not be mounted.

use std::{
    fs::File,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, openat},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen},
};

/// What became of looking for a file in a kernel filesystem.
pub(super) enum Lookup {
    /// It is open.
    Found(File),
    /// The filesystem is there, the file is not.
    Absent,
    /// It could not be looked for, and why.
    Unknown(String),
}

/// Opens `name` in the filesystem `filesystem`: where it is usually mounted, else through a mount that is
/// attached nowhere and goes away with the file.
///
/// `marker` is a file that the filesystem always has: an empty mount point lacks it.
pub(super) fn open(filesystem: &str, mounts: &[PathBuf], marker: &str, name: &str, detached: bool) -> Lookup {
    let mut refused = None;
    for mount in mounts {
        match File::open(mount.join(name)) {
            Ok(file) => return Lookup::Found(file),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if mount.join(marker).exists() {
                    return Lookup::Absent;
                }
            }
            Err(error) => refused = Some(format!("{}: {error}", mount.join(name).display())),
        }
    }
    match refused {
        Some(reason) => Lookup::Unknown(reason),
        None if detached => open_detached(filesystem, name),
        None => Lookup::Unknown(format!("{filesystem} is not mounted")),
    }
}

fn open_detached(filesystem: &str, name: &str) -> Lookup {
    let mounted = (|| -> rustix::io::Result<_> {
        let context = fsopen(filesystem, FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
    })();
    let root = match mounted {
        Ok(root) => root,
        Err(error) => {
            return Lookup::Unknown(format!(
                "{filesystem} is not mounted, and mounting it aside failed: {}",
                io::Error::from(error)
            ));
        }
    };
    match openat(&root, Path::new(name), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(file) => Lookup::Found(File::from(file)),
        Err(rustix::io::Errno::NOENT) => Lookup::Absent,
        Err(error) => Lookup::Unknown(format!("{name} in {filesystem}: {}", io::Error::from(error))),
    }
}
