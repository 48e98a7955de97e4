//! Guests: a script of ours on a real Debian kernel, under QEMU's emulation.

pub mod cpio;
pub mod debian;
pub mod kernel;
pub mod qemu;
pub mod rootfs;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result};

pub use self::{
    debian::Debian,
    kernel::Kernel,
    qemu::Ending,
    rootfs::{BPFTRACE, FIO, Packages},
};
use self::{
    qemu::{Machine, Qemu, Scratch},
    rootfs::{Content, Entry},
};
use crate::{cache::Cache, workspace};

/// A guest to be: what it runs, on which kernel and machine. [`Guest::run`] boots it.
///
/// The guest has busybox (or is a whole Debian, see [`Guest::debian`]), `/tmp`, `/dev/shm` and `/run` on tmpfs, an empty ext4 disk on `/mnt/ext4`, `/mnt/ramfs`, 64
/// huge pages of 2 MiB and `/mnt/huge`, cgroup2 on `/sys/fs/cgroup`, a loopback interface, no other network.
#[derive(Clone, Debug)]
pub struct Guest {
    kernel: Kernel,
    name: String,
    script: String,
    cpus: u32,
    memory_mib: u32,
    counted: bool,
    append: Vec<String>,
    debian: Option<Debian>,
    packages: Vec<Packages>,
    entries: Vec<Entry>,
    deadline: Duration,
}

/// What a guest left behind.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub ending: Ending,
    /// What the script printed, line by line.
    pub lines: Vec<String>,
    /// From the start of QEMU to its end.
    pub elapsed: Duration,
    /// Everything, the kernel's messages too.
    pub log: PathBuf,
    pub kernel: Kernel,
}

impl Guest {
    /// A guest with 2 CPUs and 3 GiB that runs a busybox `sh` script. `name` says what for, in the name of its log.
    pub fn new(kernel: Kernel, name: impl Into<String>, script: impl Into<String>) -> Self {
        Self {
            kernel,
            name: name.into(),
            script: script.into(),
            cpus: 2,
            memory_mib: 3072,
            counted: false,
            append: Vec::new(),
            debian: None,
            packages: Vec::new(),
            entries: Vec::new(),
            deadline: Duration::from_mins(10),
        }
    }

    #[must_use]
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    #[must_use]
    pub fn memory_mib(mut self, memory_mib: u32) -> Self {
        self.memory_mib = memory_mib;
        self
    }

    /// Makes guest time the count of instructions run (one instruction, one nanosecond), on one CPU and without the
    /// mitigations that hide what the code itself costs.
    #[must_use]
    pub fn counted(mut self) -> Self {
        self.counted = true;
        self.append("mitigations=off")
    }

    /// Adds to the kernel's command line.
    #[must_use]
    pub fn append(mut self, words: impl Into<String>) -> Self {
        self.append.push(words.into());
        self
    }

    /// Makes the guest a Debian with its systemd, in which the script is the last thing that starts. `/mnt/ext4` is on
    /// its root file system.
    #[must_use]
    pub fn debian(mut self, debian: Debian) -> Self {
        self.debian = Some(debian);
        self
    }

    /// Adds Debian packages with what they depend on.
    #[must_use]
    pub fn packages(mut self, packages: Packages) -> Self {
        self.packages.push(packages);
        self
    }

    /// Puts a file of the host at `path`.
    #[must_use]
    pub fn file(self, path: impl Into<String>, mode: u32, host: impl Into<PathBuf>) -> Self {
        self.entry(path.into(), mode, Content::Host(host.into()))
    }

    /// Puts a text at `path`.
    #[must_use]
    pub fn text(self, path: impl Into<String>, mode: u32, text: impl Into<String>) -> Self {
        self.entry(path.into(), mode, Content::Text(text.into()))
    }

    /// The guest is ended when it has run for so long.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    fn entry(mut self, path: String, mode: u32, content: Content) -> Self {
        self.entries.push(Entry { path, mode, content });
        self
    }

    /// Boots the guest, hands each line that its script prints to `on_line` as it comes, and waits for the end.
    /// Downloads what is missing. An error is one of the host; what went wrong inside is in the outcome.
    pub fn run(&self, cache: &Cache, on_line: &mut dyn FnMut(&str)) -> Result<Outcome> {
        qemu::check_host()?;
        let qemu = Qemu::get(cache)?;
        let disk = match self.debian {
            Some(debian) => debian.disk(cache)?,
            None => rootfs::disk(cache)?,
        };
        let mut layers = vec![rootfs::base(cache)?];
        for &packages in &self.packages {
            layers.push(rootfs::packages(cache, packages)?);
        }
        let initrd = Scratch(scratch("initrd")?);
        let mut entries = self.entries.clone();
        entries.push(Entry { path: "/script".to_owned(), mode: 0o755, content: Content::Text(self.script.clone()) });
        if self.debian.is_some() {
            entries = debian::entries(entries);
        }
        rootfs::assemble(&layers, &entries, &initrd.0)?;

        let log = log_file(&format!("{}-{}.log", self.kernel.series, self.name))?;
        // Warnings of the kernel are to be seen, and a panic ends QEMU at once (-no-reboot). Where this machine is busy, the
        // emulated timer may miss the ticks that the kernel tries it by, and the kernel panics at boot.
        let mut append = "console=ttyS0 panic=-1 loglevel=5 no_timer_check".to_owned();
        let handed_over = self.debian.map(|_| debian::APPEND);
        for words in self.append.iter().map(String::as_str).chain(handed_over) {
            append.push(' ');
            append.push_str(words);
        }
        let machine = Machine {
            cpus: self.cpus,
            memory_mib: self.memory_mib,
            counted: self.counted,
            kernel: &self.kernel.vmlinuz,
            initrd: &initrd.0,
            disk: &disk,
            append: &append,
        };
        let run = qemu::run(&qemu, &machine, &log, self.deadline, on_line)?;
        Ok(Outcome { ending: run.ending, lines: run.lines, elapsed: run.elapsed, log, kernel: self.kernel.clone() })
    }
}

impl Outcome {
    /// None if the script ran to its end on a kernel that had nothing to complain about; else what went wrong, on which
    /// kernel, with the end of the log.
    pub fn trouble(&self) -> Result<Option<String>> {
        let what = match &self.ending {
            Ending::Exited(_) => return Ok(None),
            Ending::Crashed(line) => format!("the kernel complained: {line}"),
            Ending::Hung(after) => format!("it had not ended after {} s", after.as_secs()),
            Ending::Lost(why) => format!("it ended before its script did ({why})"),
        };
        Ok(Some(format!(
            "Linux {} ({}): {what}\n{}\nthe whole log: {}",
            self.kernel.release,
            self.kernel.version,
            qemu::tail(&self.log)?,
            self.log.display()
        )))
    }
}

/// Where the logs of guests are kept.
fn log_file(name: &str) -> Result<PathBuf> {
    Ok(folder("vm-logs")?.join(name))
}

/// A file name that no other guest of this process, or of another, has.
fn scratch(name: &str) -> Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    Ok(folder("vm")?.join(format!("{name}-{}-{number}", std::process::id())))
}

fn folder(name: &str) -> Result<PathBuf> {
    let folder: &Path = &workspace::target().join(name);
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder.to_owned())
}
