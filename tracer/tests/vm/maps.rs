//! VMAs according to /proc/self/maps, the reference for pinscope's figures.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
};

use serde::{Deserialize, Serialize};

use crate::filesystem::Filesystems;

/// One line of /proc/self/maps.
#[derive(Clone, Debug)]
pub struct Vma {
    /// First address.
    pub start: u64,
    /// First address after it.
    pub end: u64,
    /// `rwxp` or `rwxs`.
    pub permissions: String,
    /// Major and minor number of the file's device, as `st_dev`.
    pub device: u64,
    /// Inode number; 0 without a file.
    pub inode: u64,
    /// Path or name; empty for anonymous memory.
    pub path: String,
}

impl Vma {
    /// Whether the VMA maps a file. The inode of a System V segment is its id, which begins at 0.
    pub fn has_file(&self) -> bool {
        self.inode != 0 || self.path.starts_with("/SYSV")
    }

    /// Identity of the file.
    fn file(&self) -> Option<(u64, u64)> {
        self.has_file().then_some((self.device, self.inode))
    }

    /// Identity of the `struct file`: /dev/zero is opened for each mapping, every other file here only once.
    fn vm_file(&self) -> Option<(u64, u64)> {
        let device = self.path == "/dev/zero" && self.permissions.ends_with('p');
        if device { self.has_file().then_some((u64::MAX, self.start)) } else { self.file() }
    }
}

/// Category under which a VMA is counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Backing {
    /// `anon`, `shmem`, ...
    pub class: String,
    /// Filesystem type, for the classes `file` and `special`.
    pub filesystem: Option<String>,
    /// `MAP_SHARED`.
    pub shared: bool,
    /// `PROT_WRITE`.
    pub writable: bool,
}

/// Number of VMAs and bytes with one backing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BackingSize {
    /// VMAs.
    pub vmas: u64,
    /// Bytes within the range, not of the whole VMAs.
    pub bytes: u64,
}

/// Mappings of a range up to its first hole, at which the kernel stops as well.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// Number of VMAs.
    pub vmas: u64,
    /// Whether the range has a hole.
    pub hole: bool,
    /// Distinct files.
    pub files: BTreeSet<(u64, u64)>,
    /// Distinct `struct file`s.
    pub vm_files: BTreeSet<(u64, u64)>,
    /// Sizes by backing.
    pub backings: BTreeMap<Backing, BackingSize>,
    /// Start address of each VMA.
    pub starts: Vec<u64>,
}

/// Number of distinct VMAs under the buffers of one call.
pub fn touched<'a>(layouts: impl IntoIterator<Item = &'a Layout>) -> u64 {
    let mut starts: Vec<u64> = layouts.into_iter().flat_map(|layout| &layout.starts).copied().collect();
    starts.sort_unstable();
    starts.dedup();
    starts.len() as u64
}

/// All VMAs of this process, sorted by address.
pub fn read() -> io::Result<Vec<Vma>> {
    let text = fs::read_to_string("/proc/self/maps")?;
    text.lines().map(|line| parse(line).ok_or_else(|| io::Error::other(format!("no line of maps: {line}")))).collect()
}

/// Parses a line: `start-end perms offset major:minor inode path`.
fn parse(line: &str) -> Option<Vma> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let mut fields = rest.splitn(5, ' ');
    let permissions = fields.next()?.to_owned();
    let _offset = fields.next()?;
    let (major, minor) = fields.next()?.split_once(':')?;
    let inode = fields.next()?;
    let path = fields.next().unwrap_or_default().trim_start().to_owned();
    let device = libc::makedev(u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    Some(Vma {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        permissions,
        device,
        inode: inode.parse().ok()?,
        path,
    })
}

/// Layout of `length` bytes at `address`.
pub fn layout(vmas: &[Vma], filesystems: &Filesystems, address: u64, length: u64) -> Layout {
    let mut layout = Layout::default();
    let end = address.saturating_add(length);
    let mut at = address;
    let first = vmas.partition_point(|vma| vma.end <= address);
    for vma in &vmas[first..] {
        if at >= end || vma.start > at {
            break;
        }
        let upto = vma.end.min(end);
        layout.vmas += 1;
        layout.starts.push(vma.start);
        layout.files.extend(vma.file());
        layout.vm_files.extend(vma.vm_file());
        let size = layout.backings.entry(filesystems.backing(vma)).or_default();
        size.vmas += 1;
        size.bytes += upto - at;
        at = upto;
    }
    layout.hole = at < end;
    layout
}
