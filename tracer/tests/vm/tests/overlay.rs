//! Files in an overlay, as in a container: reported under the overlay's name or another filesystem's.
//!
//! Kernels have overlayfs as a module. It is loaded from /lib/modules/overlay.ko if the guest was given that file
//! (`cargo xtask guest --file`).

use std::{
    fs::{self, File, OpenOptions},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, ensure};

use super::{ready, without_tracer};
use crate::{
    attempt::perform,
    context::Context,
    maps::{self, Backing},
    protocol::{Test, TestResult, Verdict},
    ring::{Buffer, Request, Ring},
    space::Space,
    sys::{self, PAGE},
};

const MODULE: &str = "/lib/modules/overlay.ko";

pub fn tests() -> Vec<Test> {
    vec![Test::new("vmas_overlay", overlay)]
}

/// Folders for an overlay, and the kernel's view of its files.
struct Case {
    on: &'static str,
    class: &'static str,
    shown: &'static str,
}

const CASES: [Case; 2] = [
    Case { on: "/mnt/ext4", class: "file", shown: "overlay (ext4)" },
    Case { on: "/dev/shm", class: "shmem", shown: "overlay (tmpfs)" },
];

fn overlay(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    if !context.kernel.can_be_walked() {
        return Ok(Verdict::Ignored("no walk on this kernel".into()));
    }
    if !is_there()? {
        return Ok(Verdict::Ignored(format!("the kernel has no overlayfs, and the guest no {MODULE}")));
    }
    ready(context)?;
    for case in &CASES {
        let mounted = Mounted::on(case.on)?;
        for shared in [false, true] {
            check(context, case, &mounted, shared)?;
        }
    }
    Ok(Verdict::Passed)
}

fn check(context: &Context, case: &Case, mounted: &Mounted, shared: bool) -> anyhow::Result<()> {
    let mut space = Space::new(2 * PAGE);
    let file = mounted.file()?;
    let address = space.hole(PAGE)?;
    let how = if shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
    sys::map_at(address, PAGE, libc::PROT_READ | libc::PROT_WRITE, how, Some(&file.into()), 0)?;
    // The user's view: the device in maps is the overlay's only since about 6.8.
    let vmas = maps::read()?;
    let found = vmas.iter().find(|vma| vma.start == address).context("maps has no such VMA")?;
    ensure!(found.path.starts_with(&mounted.merged()), "maps shows {}", found.path);
    let ring = Ring::new()?;
    let call = perform(context, &ring, Request::Register(&[Buffer { address, length: PAGE }]))?;
    let record = context.session()?.records_of(std::slice::from_ref(&call))?.remove(0);
    let seen: Vec<_> = record.buffer_list[0].backings.iter().map(|backing| backing.pair().0).collect();
    let truth = Backing { class: case.class.into(), filesystem: Some(case.shown.into()), shared, writable: true };
    ensure!(seen == [truth], "{seen:?}, expected {}", case.shown);
    Ok(())
}

fn is_there() -> anyhow::Result<bool> {
    let known = || fs::read_to_string("/proc/filesystems").map(|all| all.contains("overlay"));
    if !known()? && Path::new(MODULE).exists() {
        let loaded = Command::new("insmod").arg(MODULE).status()?;
        ensure!(loaded.success(), "insmod {MODULE}: {loaded}");
    }
    Ok(known()?)
}

/// An overlay, unmounted when dropped.
struct Mounted {
    folder: String,
}

impl Mounted {
    fn on(place: &str) -> anyhow::Result<Self> {
        let folder = format!("{place}/overlay");
        for name in ["lower", "upper", "work", "merged"] {
            fs::create_dir_all(format!("{folder}/{name}"))?;
        }
        let options = format!("lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work");
        let merged = format!("{folder}/merged");
        let done = Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options, &merged]).status()?;
        ensure!(done.success(), "mount -o {options}: {done}");
        Ok(Self { folder })
    }

    fn merged(&self) -> String {
        format!("{}/merged", self.folder)
    }

    fn file(&self) -> anyhow::Result<File> {
        let path = format!("{}/file", self.merged());
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        file.set_len(PAGE)?;
        Ok(file)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", &self.merged()]).status();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
