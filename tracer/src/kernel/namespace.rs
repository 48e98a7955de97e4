//! The PID namespace that this process is in, and sees processes by.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use super::{Known, OF_PROCFS, Unknown, unread};

/// `PROC_PID_INIT_INO` of `include/linux/proc_ns.h`: the initial PID namespace on every kernel.
const INITIAL: u64 = 0xEFFF_FFFC;

/// Inode number of the namespace; 0 for the initial one, by which the kernel numbers tasks itself.
///
/// # Errors
/// `/proc` does not tell.
pub(super) fn pid(proc: &Path) -> Known<u32> {
    let file = proc.join("self/ns/pid");
    let inode = fs::metadata(&file).map_err(|error| unread(proc, OF_PROCFS, &file, error))?.ino();
    if inode == INITIAL {
        return Ok(0);
    }
    u32::try_from(inode).map_err(|error| Unknown::new(file.display(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_told_by_its_inode() {
        let root = tempfile::tempdir().expect("a folder");
        assert!(pid(root.path()).is_err());
        fs::create_dir_all(root.path().join("self/ns")).expect("a folder");
        fs::write(root.path().join("self/ns/pid"), "").expect("a file");
        let inode = fs::metadata(root.path().join("self/ns/pid")).expect("a file").ino();
        assert_eq!(pid(root.path()), Ok(u32::try_from(inode).expect("a small number")));
    }
}
