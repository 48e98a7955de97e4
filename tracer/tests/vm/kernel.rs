//! What the kernel under test is, by its own word.

use std::{fs, io};

/// Major and minor number of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

/// The first kernel with the tracepoints of mmap_lock.
pub const LOCK_TRACEPOINTS: Version = Version(5, 11);

/// The kernel under test.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// `uname -r`.
    pub release: String,
    /// Its first two numbers.
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

    /// Whether each VMA of a buffer must be anonymous, shmem or hugetlb, and all of one file (to 6.4).
    pub fn refuses_files(&self) -> bool {
        self.version < Version(6, 5)
    }

    /// Whether pinscope can walk VMAs: `bpf_loop` and `bpf_find_vma` are there (5.17).
    pub fn can_be_walked(&self) -> bool {
        self.version >= Version(5, 17)
    }

    /// Whether a kernel older than `version` is under test, in the words of an ignored test.
    pub fn lacks(&self, what: &str, version: Version) -> Option<String> {
        (self.version < version).then(|| format!("{} has no {what} (since {}.{})", self.release, version.0, version.1))
    }
}
