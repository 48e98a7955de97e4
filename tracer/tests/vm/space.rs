//! Memory of known kinds with a known address layout.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::OwnedFd,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::Context as _;

use crate::sys::{self, HUGE_PAGE, PAGE};

/// First address of all spaces, far from where the kernel places mappings, so that holes stay holes.
const BASE: u64 = 0x1000_0000_0000;
/// Address of the next space.
static NEXT: AtomicU64 = AtomicU64::new(BASE);
/// Number of the next file.
static FILES: AtomicU64 = AtomicU64::new(0);

/// A kind of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Private anonymous memory.
    Anon,
    /// Shared anonymous memory, which is shmem to the kernel.
    SharedAnon,
    /// Shared mapping of a memfd.
    Memfd,
    /// Private mapping of a memfd.
    MemfdPrivate,
    /// Shared mapping of a tmpfs file.
    Tmpfs,
    /// Private mapping of a tmpfs file.
    TmpfsPrivate,
    /// System V shared memory.
    SysV,
    /// `MAP_HUGETLB`, private.
    Hugetlb,
    /// `MAP_HUGETLB`, shared.
    HugetlbShared,
    /// Shared mapping of a hugetlbfs file.
    HugetlbFile,
    /// Shared mapping of an ext4 file.
    Ext4,
    /// Private mapping of an ext4 file.
    Ext4Private,
    /// Shared mapping of a ramfs file.
    Ramfs,
    /// Private mapping of a ramfs file.
    RamfsPrivate,
    /// Shared mapping of /dev/zero, which is shmem to the kernel.
    Zero,
    /// Private mapping of /dev/zero.
    ZeroPrivate,
    /// Read-only anonymous memory.
    ReadOnly,
    /// Anonymous memory without any access.
    NoAccess,
    /// Shared mapping of memfd_secret(2).
    Secret,
    /// Shared mapping of a block device.
    Block,
    /// Private mapping of a block device.
    BlockPrivate,
    /// Shared mapping of a file on a DAX filesystem.
    Dax,
    /// Private mapping of a file on a DAX filesystem.
    DaxPrivate,
}

impl Kind {
    /// Alignment in bytes.
    pub fn granule(self) -> u64 {
        if matches!(self, Self::Hugetlb | Self::HugetlbShared | Self::HugetlbFile) { HUGE_PAGE } else { PAGE }
    }
}

/// A range of addresses that grows upward, mapping by mapping. Unmapped when dropped.
pub struct Space {
    start: u64,
    end: u64,
    limit: u64,
}

impl Space {
    /// Creates a space of at most `room` bytes. A hole of at least 4 MiB separates it from the next.
    pub fn new(room: u64) -> Self {
        let size = room.next_multiple_of(HUGE_PAGE) + 2 * HUGE_PAGE;
        let start = NEXT.fetch_add(size, Ordering::Relaxed);
        Self { start, end: start, limit: start + size - 2 * HUGE_PAGE }
    }

    /// Address of the next mapping.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Bytes so far, from the first mapping or hole.
    pub fn length(&self) -> u64 {
        self.end - self.start
    }

    /// First address.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Leaves `length` bytes unmapped.
    pub fn hole(&mut self, length: u64) -> anyhow::Result<u64> {
        let at = self.end;
        self.grow(length)?;
        Ok(at)
    }

    /// Advances to the next address at which this kind can start.
    pub fn align(&mut self, kind: Kind) -> anyhow::Result<()> {
        self.grow(self.end.next_multiple_of(kind.granule()) - self.end)
    }

    /// Maps `length` bytes of a kind and returns their address. File-backed kinds get a new file for each call.
    pub fn map(&mut self, kind: Kind, length: u64) -> anyhow::Result<u64> {
        let at = self.end;
        self.grow(length)?;
        put(kind, at, length).with_context(|| format!("mapping {length} bytes of {kind:?} at {at:#x}"))?;
        Ok(at)
    }

    /// Maps an open file at an offset, shared and writable.
    pub fn map_file(&mut self, file: &OwnedFd, offset: u64, length: u64) -> anyhow::Result<u64> {
        let at = self.end;
        self.grow(length)?;
        sys::map_at(at, length, READ_WRITE, libc::MAP_SHARED, Some(file), offset)?;
        Ok(at)
    }

    /// Maps anonymous memory whose pages are present immediately, with `MAP_POPULATE`.
    pub fn map_populated(&mut self, length: u64) -> anyhow::Result<u64> {
        let at = self.end;
        self.grow(length)?;
        sys::map_at(at, length, READ_WRITE, ANON_PRIVATE | libc::MAP_POPULATE, None, 0)?;
        Ok(at)
    }

    /// Maps a huge page without a reservation, so the pool may lack it.
    pub fn map_unreserved(&mut self) -> anyhow::Result<u64> {
        let at = self.end;
        self.grow(HUGE_PAGE)?;
        sys::map_at(at, HUGE_PAGE, READ_WRITE, ANON_PRIVATE | libc::MAP_HUGETLB | libc::MAP_NORESERVE, None, 0)?;
        Ok(at)
    }

    /// Maps `count` pages of anonymous memory, each in a VMA of its own.
    pub fn map_split(&mut self, count: u64) -> anyhow::Result<u64> {
        self.map_split_by(count, 1)
    }

    /// Maps anonymous memory in `count` VMAs with `pages` each. Every other one is marked as not inherited, so that
    /// they stay separate.
    pub fn map_split_by(&mut self, count: u64, pages: u64) -> anyhow::Result<u64> {
        let length = pages * PAGE;
        let at = self.map(Kind::Anon, count * length)?;
        for part in (1..count).step_by(2) {
            sys::advise(at + part * length, length, libc::MADV_DONTFORK).context("splitting a VMA")?;
        }
        Ok(at)
    }

    fn grow(&mut self, length: u64) -> anyhow::Result<()> {
        anyhow::ensure!(self.end + length <= self.limit, "the test's space has no room for {length} more bytes");
        self.end += length;
        Ok(())
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if self.end > self.start {
            // SAFETY: only integers refer to addresses in there, and none of them outlives the test that created the
            // space.
            unsafe { sys::unmap(self.start, self.end - self.start) };
        }
    }
}

const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;
const ANON_PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
const ANON_SHARED: i32 = libc::MAP_SHARED | libc::MAP_ANONYMOUS;

fn put(kind: Kind, at: u64, length: u64) -> io::Result<()> {
    let anonymous = |protection, flags| sys::map_at(at, length, protection, flags, None, 0);
    let file = |file: OwnedFd, flags| sys::map_at(at, length, READ_WRITE, flags, Some(&file), 0);
    match kind {
        Kind::Anon => anonymous(READ_WRITE, ANON_PRIVATE),
        Kind::SharedAnon => anonymous(READ_WRITE, ANON_SHARED),
        Kind::ReadOnly => anonymous(libc::PROT_READ, ANON_PRIVATE),
        Kind::NoAccess => anonymous(libc::PROT_NONE, ANON_PRIVATE),
        Kind::Hugetlb => anonymous(READ_WRITE, ANON_PRIVATE | libc::MAP_HUGETLB),
        Kind::HugetlbShared => anonymous(READ_WRITE, ANON_SHARED | libc::MAP_HUGETLB),
        Kind::Memfd => file(sys::memfd_of(0, length)?, libc::MAP_SHARED),
        Kind::MemfdPrivate => file(sys::memfd_of(0, length)?, libc::MAP_PRIVATE),
        Kind::Tmpfs => file(scratch("/tmp", length)?, libc::MAP_SHARED),
        Kind::TmpfsPrivate => file(scratch("/tmp", length)?, libc::MAP_PRIVATE),
        Kind::HugetlbFile => file(scratch("/mnt/huge", length)?, libc::MAP_SHARED),
        Kind::Ext4 => file(scratch("/mnt/ext4", length)?, libc::MAP_SHARED),
        Kind::Ext4Private => file(scratch("/mnt/ext4", length)?, libc::MAP_PRIVATE),
        Kind::Ramfs => file(scratch("/mnt/ramfs", length)?, libc::MAP_SHARED),
        Kind::RamfsPrivate => file(scratch("/mnt/ramfs", length)?, libc::MAP_PRIVATE),
        Kind::Zero => file(device("/dev/zero")?, libc::MAP_SHARED),
        Kind::ZeroPrivate => file(device("/dev/zero")?, libc::MAP_PRIVATE),
        Kind::Secret => file(sys::secret(length)?, libc::MAP_SHARED),
        Kind::Block => file(device("/dev/nvme0n1")?, libc::MAP_SHARED),
        Kind::Dax => file(scratch("/mnt/dax", length)?, libc::MAP_SHARED),
        Kind::DaxPrivate => file(scratch("/mnt/dax", length)?, libc::MAP_PRIVATE),
        Kind::BlockPrivate => file(device("/dev/nvme0n1")?, libc::MAP_PRIVATE),
        Kind::SysV => sys::attach_sysv(at, length),
    }
}

fn device(path: &str) -> io::Result<OwnedFd> {
    Ok(OpenOptions::new().read(true).write(true).open(path)?.into())
}

/// An unnamed file in this folder with `length` bytes, all of them a hole.
fn scratch(folder: &str, length: u64) -> io::Result<OwnedFd> {
    let number = FILES.fetch_add(1, Ordering::Relaxed);
    let path = format!("{folder}/guest-{}-{number}", std::process::id());
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    file.set_len(length)?;
    Ok(file.into())
}
