//! Facts about the kernel under test, as the kernel reports them.

use std::{fs, io};

/// First two numbers of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

/// First kernel with tracepoints for mmap_lock.
pub const LOCK_TRACEPOINTS: Version = Version(5, 11);

/// The kernel under test.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Output of `uname -r`.
    pub release: String,
    /// First two numbers of the release.
    pub version: Version,
}

impl Kernel {
    /// Reads /proc/sys/kernel/osrelease.
    pub fn read() -> io::Result<Self> {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
        let mut numbers = release.split(['.', '-', '+']).map_while(|part| part.parse().ok());
        let version = Version(numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        Ok(Self { release, version })
    }

    /// Whether all VMAs of a buffer must be anonymous, shmem or hugetlb, and from one file (up to 6.4).
    pub fn refuses_files(&self) -> bool {
        self.version < Version(6, 5)
    }

    /// Whether pinscope can walk VMAs, which needs `bpf_loop` and `bpf_find_vma` (5.17).
    pub fn can_be_walked(&self) -> bool {
        self.version >= Version(5, 17)
    }

    /// Reason to ignore a test, if the kernel is older than `version`.
    pub fn lacks(&self, what: &str, version: Version) -> Option<String> {
        (self.version < version).then(|| format!("{} has no {what} (since {}.{})", self.release, version.0, version.1))
    }
}
