//! Root file system of a guest, in layers: busybox with our /init, optional Debian packages, and files that change from
//! build to build. The first two are built once and cached.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::cpio;
use crate::{
    apt::Archive,
    cache::Cache,
    exec::{exec, read},
};

/// Part of the names in the cache. To be raised when a layer changes although its packages do not.
const LAYOUT: u32 = 1;
const INIT: &str = include_str!("init.sh");
/// Size of the scratch disk, a sparse file. What a guest writes to it is discarded.
const DISK_GIB: u64 = 2;

/// Packages of one Debian suite, installed with their run-time dependencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packages {
    pub suite: &'static str,
    pub names: &'static [&'static str],
}

/// Load generator of the main job and of the tests with real programs.
pub const FIO: Packages = Packages { suite: "bookworm", names: &["fio"] };
/// Program whose cost is compared with pinscope's.
pub const BPFTRACE: Packages = Packages { suite: "sid", names: &["bpftrace"] };

/// A file for the guest: path, mode and content.
#[derive(Clone, Debug)]
pub struct Entry {
    pub path: String,
    pub mode: u32,
    pub content: Content,
}

#[derive(Clone, Debug)]
pub enum Content {
    Host(PathBuf),
    Text(String),
}

/// Layer that all guests have.
pub fn base(cache: &Cache) -> Result<PathBuf> {
    const NAME: &str = "busybox-static";
    // A cached layer contains the /init of its time, so a changed /init needs a new layer.
    let name = format!("layers/base-{LAYOUT}-{:08x}.cpio", checksum(INIT.as_bytes()));
    if cache.path(&name).is_file() {
        return Ok(cache.path(name));
    }
    let guard = cache.lock()?;
    let folder = cache.folder("packages/bookworm-busybox", &guard, |folder| {
        println!("setup: {NAME}, the user space of the guests; downloaded into the cache");
        let archive = Archive::open(cache, &guard, "bookworm", &["bookworm"])?;
        archive.unpack(&[NAME.to_owned()], folder, &folder.join("root"))
    })?;
    let root = folder.join("root");
    let Some(busybox) =
        ["bin/busybox", "usr/bin/busybox"].iter().map(|name| root.join(name)).find(|path| path.is_file())
    else {
        bail!("no busybox in {NAME}");
    };
    cache.file(&name, &guard, |file| write_base(&busybox, file))
}

fn write_base(busybox: &Path, file: &Path) -> Result<()> {
    let applets = read(Command::new(busybox).arg("--list"))?;
    let mut archive = cpio::Archive::new(BufWriter::new(File::create(file)?));
    for folder in
        ["dev", "etc", "mnt", "proc", "root", "run", "sys", "usr", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "var"]
    {
        archive.folder(folder, 0o755)?;
    }
    archive.folder("tmp", 0o1777)?;
    for name in ["bin", "sbin", "lib", "lib64"] {
        archive.link(name, &format!("usr/{name}"))?;
    }
    archive.char_device("dev/console", 0o600, (5, 1))?;
    archive.char_device("dev/null", 0o666, (1, 3))?;
    archive.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")?;
    archive.file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
    archive.file("usr/bin/busybox", 0o755, &fs::read(busybox)?)?;
    for applet in applets.lines().filter(|&applet| applet != "busybox") {
        archive.link(&format!("usr/bin/{applet}"), "busybox")?;
    }
    archive.file("init", 0o755, INIT.as_bytes())?;
    archive.finish()?;
    Ok(())
}

/// Layer with some packages.
pub fn packages(cache: &Cache, packages: Packages) -> Result<PathBuf> {
    let Packages { suite, names } = packages;
    let title = format!("{suite}-{}", names.join("-"));
    let name = format!("layers/{title}-{LAYOUT}.cpio");
    if cache.path(&name).is_file() {
        return Ok(cache.path(name));
    }
    let guard = cache.lock()?;
    let folder = cache.folder(&format!("packages/{title}"), &guard, |folder| {
        println!("setup: {} of Debian {suite}, for guests; downloaded into the cache", names.join(", "));
        let archive = Archive::open(cache, &guard, suite, &[suite])?;
        archive.unpack(&archive.closure(names, suite)?, folder, &folder.join("root"))
    })?;
    cache.file(&name, &guard, |file| {
        let mut archive = cpio::Archive::new(BufWriter::new(File::create(file)?));
        archive.tree(&folder.join("root"), &place)?;
        archive.finish()?;
        Ok(())
    })
}

/// Path of a packaged file in the guest: everything is under /usr. `None` for files that no program reads at run time.
fn place(name: &str) -> Option<String> {
    const LEFT_OUT: [&str; 12] = [
        "usr/share/bash-completion",
        "usr/share/doc",
        "usr/share/info",
        "usr/share/lintian",
        "usr/share/locale",
        "usr/share/man",
        "usr/share/zoneinfo",
        "usr/lib/x86_64-linux-gnu/gconv",
        "usr/lib/x86_64-linux-gnu/perl",
        "usr/lib/systemd",
        "etc",
        "var",
    ];
    let name = under_usr(name);
    let below = |folder: &str| name.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    (!LEFT_OUT.iter().any(|folder| below(folder))).then_some(name)
}

/// Path under /usr of a file in /bin, /sbin, /lib or /lib64, which are symbolic links.
fn under_usr(name: &str) -> String {
    let top = name.split('/').next().unwrap_or(name);
    if ["bin", "sbin", "lib", "lib64"].contains(&top) { format!("usr/{name}") } else { name.to_owned() }
}

/// Writes the layers and the additional files into one archive.
pub fn assemble(layers: &[PathBuf], entries: &[Entry], file: &Path) -> Result<()> {
    let mut out = BufWriter::new(File::create(file).with_context(|| format!("cannot write {}", file.display()))?);
    for layer in layers {
        let mut layer = File::open(layer).with_context(|| format!("cannot read {}", layer.display()))?;
        io::copy(&mut layer, &mut out)?;
    }
    let mut archive = cpio::Archive::new(out);
    let mut folders = BTreeSet::new();
    for entry in entries {
        let path = under_usr(entry.path.trim_start_matches('/'));
        for folder in folders_above(&path).filter(|&folder| folders.insert(folder.to_owned())) {
            archive.folder(folder, 0o755)?;
        }
        match &entry.content {
            Content::Host(host) => {
                let content = fs::read(host).with_context(|| format!("cannot read {}", host.display()))?;
                archive.file(&path, entry.mode, &content)?;
            }
            Content::Text(text) => archive.file(&path, entry.mode, text.as_bytes())?,
        }
    }
    archive.finish()?.flush()?;
    Ok(())
}

/// Folders that a file needs in addition to those of the base layer, which has two levels.
fn folders_above(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').skip(2).map(|(at, _)| &path[..at])
}

/// A disk with an empty ext4 file system. Builds it if it is not cached.
pub fn disk(cache: &Cache) -> Result<PathBuf> {
    let name = format!("disks/ext4-{DISK_GIB}G.img");
    if cache.path(&name).is_file() {
        return Ok(cache.path(name));
    }
    let guard = cache.lock()?;
    cache.file(&name, &guard, |file| {
        File::create(file)
            .and_then(|disk| disk.set_len(DISK_GIB << 30))
            .with_context(|| format!("cannot write {}", file.display()))?;
        exec(mke2fs().arg(file))
    })
}

/// A command that makes an ext4 file system.
pub fn mke2fs() -> Command {
    // mke2fs is in a folder that is not on every user's PATH.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("mke2fs");
    command.env("PATH", path).args(["-q", "-F", "-t", "ext4", "-m", "0"]);
    command
}

/// FNV-1a: distinguishes texts, nothing more.
pub fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_brings_its_folders() {
        assert_eq!(folders_above("usr/bin/x").count(), 0);
        assert_eq!(folders_above("script").count(), 0);
        let all: Vec<_> = folders_above("usr/lib/a/b/x").collect();
        assert_eq!(all, ["usr/lib/a", "usr/lib/a/b"]);
    }

    #[test]
    fn packaged_files_go_under_usr_without_documentation() {
        assert_eq!(place("lib/x86_64-linux-gnu/libc.so.6").as_deref(), Some("usr/lib/x86_64-linux-gnu/libc.so.6"));
        assert_eq!(place("usr/bin/fio").as_deref(), Some("usr/bin/fio"));
        assert_eq!(place("library").as_deref(), Some("library"));
        assert_eq!(place("usr/share/doc/fio/README"), None);
        assert_eq!(place("usr/share/doc"), None);
        assert_eq!(place("usr/share/docs").as_deref(), Some("usr/share/docs"));
    }
}
