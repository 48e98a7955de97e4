//! Guests that run a complete Debian, for tests of the package and the service: a root file system with systemd, built
//! once by mmdebstrap and cached as a disk.
//!
//! Files that change from build to build are in the initial root file system, as in other guests. Its /init copies them
//! to the disk and hands over to systemd. QEMU discards what is written to the disk.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::rootfs::{Content, Entry, checksum, mke2fs};
use crate::{apt, cache::Cache, setup};

/// Label by which the guest finds its root file system.
const LABEL: &str = "pinscope-root";
/// Size of the disk, a sparse file.
const SIZE_GIB: u64 = 2;
/// Folder of the initial root file system whose content belongs into Debian's.
const PAYLOAD: &str = "/usr/lib/debian";
const INIT: &str = include_str!("debian-init.sh");
const UNIT: &str = include_str!("debian-script.service");
const SCRIPT: &str = include_str!("debian-script.sh");
/// Words for the kernel's command line: the program that hands over to systemd, and the last unit to start.
pub const APPEND: &str = "rdinit=/debian-init systemd.wants=guest-script.service";

/// Packages of every suite.
const COMMON: &str = "systemd,systemd-sysv,dbus,udev,kmod";
/// Commands run in the finished file system. They remove traces of the host and work that is only done at first boot,
/// disable units that the tests do not start, and remove the package sources.
const CUSTOMIZE: [&str; 6] = [
    "cd \"$1\"",
    "echo guest >etc/hostname",
    "rm -f etc/resolv.conf etc/apt/sources.list etc/apt/sources.list.d/*",
    "echo 70696e73636f7065000000000000beef >etc/machine-id",
    "touch etc/.updated var/.updated",
    "for unit in serial-getty@ttyS0.service getty@tty1.service prometheus.service systemd-firstboot.service \
     systemd-udev-trigger.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer \
     e2scrub_all.timer; do ln -sf /dev/null etc/systemd/system/$unit; done",
];

/// A Debian suite with some packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Debian {
    suite: &'static str,
    packages: &'static str,
}

/// The suite on which the service is tested, with a load generator and Prometheus.
pub const TRIXIE: Debian = Debian { suite: "trixie", packages: "fio,prometheus" };
/// The suite before [`TRIXIE`].
pub const BOOKWORM: Debian = Debian { suite: "bookworm", packages: "" };

impl Debian {
    /// Parses a suite of the command line.
    pub fn named(suite: &str) -> Result<Self, String> {
        let all = [TRIXIE, BOOKWORM];
        let names = || all.map(|debian| debian.suite).join(", ");
        all.into_iter().find(|debian| debian.suite == suite).ok_or_else(|| format!("known suites are {}", names()))
    }

    /// The disk with the root file system. Builds it if it is not cached, which needs root.
    pub fn disk(self, cache: &Cache) -> Result<PathBuf> {
        let Self { suite, packages } = self;
        let recipe = checksum([COMMON, packages, &CUSTOMIZE.concat()].concat().as_bytes());
        let name = format!("disks/debian-{suite}-{recipe:08x}.ext4");
        if cache.path(&name).is_file() {
            return Ok(cache.path(name));
        }
        setup::install(&["mmdebstrap"], "makes the root file systems of Debian guests")?;
        let guard = cache.lock()?;
        cache.file(&name, &guard, |file| {
            println!("setup: Debian {suite} with {}, for guests; made by mmdebstrap in the cache", self.included());
            let tree = file.with_extension("tree");
            removed(&tree)?;
            File::create(file)
                .and_then(|disk| disk.set_len(SIZE_GIB << 30))
                .with_context(|| format!("cannot write {}", file.display()))?;
            let made = self.bootstrap(&tree).and_then(|()| {
                let mut mke2fs = mke2fs();
                mke2fs.args(["-L", LABEL, "-d"]).arg(&tree).arg(file);
                setup::as_root(&mut mke2fs, "the disk of a Debian guest")
            });
            removed(&tree)?;
            made
        })
    }

    fn included(self) -> String {
        [COMMON, self.packages].into_iter().filter(|names| !names.is_empty()).collect::<Vec<_>>().join(",")
    }

    fn bootstrap(self, tree: &Path) -> Result<()> {
        let mut command = Command::new("mmdebstrap");
        command.args(["--quiet", "--mode=root", "--variant=minbase", "--architectures=amd64"]);
        command.arg(format!("--include={}", self.included()));
        command.arg(r#"--aptopt=Acquire::Check-Valid-Until "false""#);
        command.arg(format!("--customize-hook={}", CUSTOMIZE.join(" && ")));
        command.arg(self.suite).arg(tree).arg(apt::source(self.suite)?);
        setup::as_root(&mut command, "the root file system of a Debian guest")
    }
}

/// Removes the tree, which belongs to root.
fn removed(tree: &Path) -> Result<()> {
    if tree.exists() {
        setup::as_root(
            Command::new("rm").args(["-r", "--one-file-system"]).arg(tree),
            "what is left of a disk's making",
        )?;
    }
    Ok(())
}

/// Files of the initial root file system: those meant for Debian's, and those that copy them there.
pub fn entries(mut meant: Vec<Entry>) -> Vec<Entry> {
    let text =
        |path: &str, mode, text: &str| Entry { path: path.to_owned(), mode, content: Content::Text(text.to_owned()) };
    meant.push(text("/etc/systemd/system/guest-script.service", 0o644, UNIT));
    meant.push(text("/usr/lib/guest-script", 0o755, SCRIPT));
    for entry in &mut meant {
        entry.path.insert_str(0, PAYLOAD);
    }
    meant.push(text("/debian-init", 0o755, INIT));
    meant
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_for_debian_go_into_the_payload() {
        let script = Entry { path: "/script".to_owned(), mode: 0o755, content: Content::Text(String::new()) };
        let paths: Vec<_> = entries(vec![script]).into_iter().map(|entry| entry.path).collect();
        assert!(paths.contains(&"/usr/lib/debian/script".to_owned()), "{paths:?}");
        assert!(paths.contains(&"/debian-init".to_owned()), "{paths:?}");
        assert!(INIT.contains(PAYLOAD) && INIT.contains(LABEL));
    }

    #[test]
    fn suites_by_name() {
        assert_eq!(Debian::named("trixie"), Ok(TRIXIE));
        assert_eq!(Debian::named("potato"), Err("known suites are trixie, bookworm".to_owned()));
    }
}
