//! Determines the kind of memory of a line of /proc/self/maps.

use std::{collections::HashMap, fs, io, os::fd::AsRawFd};

use crate::{
    maps::{Backing, Vma},
    sys,
};

/// Filesystem types by `st_dev`, including filesystems that the kernel mounts internally.
pub struct Filesystems(HashMap<u64, String>);

impl Filesystems {
    /// Reads /proc/self/mountinfo, and creates memfds of both kinds to get the devices of the kernel's internal mounts.
    pub fn read() -> io::Result<Self> {
        let mut types = HashMap::new();
        for line in fs::read_to_string("/proc/self/mountinfo")?.lines() {
            if let Some((device, kind)) = mount(line) {
                types.insert(device, kind);
            }
        }
        types.insert(device_of(&sys::memfd(0)?)?, "tmpfs".to_owned());
        if let Ok(huge) = sys::memfd(libc::MFD_HUGETLB) {
            types.insert(device_of(&huge)?, "hugetlbfs".to_owned());
        }
        Ok(Self(types))
    }

    /// Backing under which pinscope has to count the VMA.
    pub fn backing(&self, vma: &Vma) -> Backing {
        let (class, filesystem) = self.class(vma);
        Backing {
            class: class.to_owned(),
            filesystem: filesystem.map(str::to_owned),
            shared: vma.permissions.ends_with('s'),
            writable: vma.permissions.as_bytes().get(1) == Some(&b'w'),
        }
    }

    fn class<'a>(&'a self, vma: &Vma) -> (&'static str, Option<&'a str>) {
        if vma.path.starts_with("/SYSV") {
            return ("shmem", None);
        }
        if !vma.has_file() {
            let kernels_own = matches!(vma.path.as_str(), "[vdso]" | "[vvar]" | "[vvar_vclock]" | "[vsyscall]");
            return (if kernels_own { "special" } else { "anon" }, None);
        }
        if vma.path.starts_with("anon_inode:") {
            return ("special", Some("anon_inodefs"));
        }
        if vma.path.starts_with("/secretmem") {
            return ("special", Some("secretmem"));
        }
        if vma.path == "/dev/zero" {
            return ("device", None);
        }
        match self.0.get(&vma.device).map(String::as_str) {
            Some("tmpfs" | "devtmpfs") => ("shmem", None),
            Some("hugetlbfs") => ("hugetlb", None),
            Some(other) => ("file", Some(other)),
            None => ("file", Some("unknown to this test")),
        }
    }
}

/// Device and type of a line of mountinfo: `id parent major:minor root point options [tags] - type source options`.
fn mount(line: &str) -> Option<(u64, String)> {
    let (left, right) = line.split_once(" - ")?;
    let (major, minor) = left.split(' ').nth(2)?.split_once(':')?;
    Some((libc::makedev(major.parse().ok()?, minor.parse().ok()?), right.split(' ').next()?.to_owned()))
}

fn device_of(file: &impl AsRawFd) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(fs::metadata(format!("/proc/self/fd/{}", file.as_raw_fd()))?.dev())
}
