//! Writes the newc cpio format, which the kernel unpacks as its initial root file system.
//!
//! Archives can be concatenated, so a root file system consists of layers. An own writer needs neither cpio nor root on
//! the host, and writes a device node as a header like any other.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Write},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use anyhow::{Context as _, Result, bail};

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHAR_DEVICE: u32 = 0o020_000;
/// Each layer is padded to this size, so that the next one can be appended.
const BLOCK: u64 = 512;

/// Writes one archive.
pub struct Archive<W: Write> {
    out: W,
    written: u64,
    inode: u32,
}

impl<W: Write> Archive<W> {
    pub fn new(out: W) -> Self {
        Self { out, written: 0, inode: 0 }
    }

    pub fn folder(&mut self, name: &str, mode: u32) -> io::Result<()> {
        self.entry(name, FOLDER | mode, (0, 0), &[])
    }

    pub fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.entry(name, FILE | mode, (0, 0), content)
    }

    pub fn link(&mut self, name: &str, target: &str) -> io::Result<()> {
        self.entry(name, LINK | 0o777, (0, 0), target.as_bytes())
    }

    pub fn char_device(&mut self, name: &str, mode: u32, (major, minor): (u32, u32)) -> io::Result<()> {
        self.entry(name, CHAR_DEVICE | mode, (major, minor), &[])
    }

    /// Adds everything below a folder of the host, owned by root. `rename` returns the name of each path in the
    /// archive, or `None` to leave it out.
    pub fn tree(&mut self, root: &Path, rename: &dyn Fn(&str) -> Option<String>) -> Result<()> {
        self.below(root, root, rename)
    }

    fn below(&mut self, root: &Path, folder: &Path, rename: &dyn Fn(&str) -> Option<String>) -> Result<()> {
        let mut entries = fs::read_dir(folder)
            .and_then(Iterator::collect::<io::Result<Vec<_>>>)
            .with_context(|| format!("cannot list {}", folder.display()))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let Some(name) = path.strip_prefix(root)?.to_str() else {
                bail!("{} is not UTF-8", path.display());
            };
            let Some(name) = rename(name) else { continue };
            let data = entry.metadata().with_context(|| format!("cannot read {}", path.display()))?;
            let mode = data.permissions().mode() & 0o7777;
            if data.is_dir() {
                self.folder(&name, mode)?;
                self.below(root, &path, rename)?;
            } else if data.is_symlink() {
                let target = fs::read_link(&path)?;
                self.link(&name, target.to_str().with_context(|| format!("{} is not UTF-8", target.display()))?)?;
            } else if data.is_file() {
                let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                self.file(&name, mode, &content)?;
            } else {
                bail!("{} is no file, folder or link (mode {:o})", path.display(), data.mode());
            }
        }
        Ok(())
    }

    /// Ends the archive. Another one may follow.
    pub fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.pad(BLOCK)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) -> io::Result<()> {
        self.inode += 1;
        let size = u32::try_from(content.len())
            .map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, format!("{name} is over 4 GiB")))?;
        let links = if mode & FOLDER == FOLDER { 2 } else { 1 };
        let name_size = name.len() as u32 + 1;
        let fields = [self.inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0];
        let mut header = String::from("070701");
        for field in fields {
            // Writing to a string cannot fail.
            let _ = write!(header, "{field:08X}");
        }
        self.write(header.as_bytes())?;
        self.write(name.as_bytes())?;
        self.write(&[0])?;
        self.pad(4)?;
        self.write(content)?;
        self.pad(4)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn pad(&mut self, boundary: u64) -> io::Result<()> {
        let missing = self.written.next_multiple_of(boundary) - self.written;
        self.write(&vec![0; missing as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_read_back() {
        let mut archive = Archive::new(Vec::new());
        archive.folder("bin", 0o755).unwrap();
        archive.file("bin/a", 0o755, b"12345").unwrap();
        archive.link("sbin", "bin").unwrap();
        archive.char_device("dev/console", 0o600, (5, 1)).unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 512, 0);

        let mut at = 0;
        let mut seen = Vec::new();
        loop {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let field = |n: usize| {
                let start = at + 6 + 8 * n;
                usize::from_str_radix(std::str::from_utf8(&bytes[start..start + 8]).unwrap(), 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6), field(11));
            let name = std::str::from_utf8(&bytes[at + 110..at + 110 + name_size - 1]).unwrap();
            let content = (at + 110 + name_size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                break;
            }
            seen.push((name, mode, bytes[content..content + size].to_vec(), (field(9), field(10))));
            at = (content + size).next_multiple_of(4);
        }
        assert_eq!(
            seen,
            [
                ("bin", 0o040_755, vec![], (0, 0)),
                ("bin/a", 0o100_755, b"12345".to_vec(), (0, 0)),
                ("sbin", 0o120_777, b"bin".to_vec(), (0, 0)),
                ("dev/console", 0o020_600, vec![], (5, 1)),
            ]
        );
    }

    #[test]
    fn a_tree_is_renamed_and_thinned_out() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("lib/x")).unwrap();
        fs::create_dir_all(root.path().join("doc")).unwrap();
        fs::write(root.path().join("lib/x/file"), "content").unwrap();
        fs::write(root.path().join("doc/readme"), "text").unwrap();
        let mut archive = Archive::new(Vec::new());
        archive.tree(root.path(), &|name| (!name.starts_with("doc")).then(|| format!("usr/{name}"))).unwrap();
        let text = String::from_utf8_lossy(&archive.finish().unwrap()).into_owned();
        assert!(text.contains("usr/lib/x/file") && text.contains("content"));
        assert!(!text.contains("readme"));
    }
}
