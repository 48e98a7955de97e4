//! Guests: run a script on a real Debian kernel under QEMU's emulation.

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

/// A guest to be booted: its script, kernel and machine. [`Guest::run`] boots it.
///
/// The guest has busybox (or is a complete Debian, see [`Guest::debian`]), `/tmp`, `/dev/shm` and `/run` on tmpfs, an
/// empty ext4 disk on `/mnt/ext4`, `/mnt/ramfs`, 64 huge pages of 2 MiB and `/mnt/huge`, cgroup2 on `/sys/fs/cgroup`,
/// and a loopback interface. There is no other network.
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

/// Results of a guest.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub ending: Ending,
    /// Lines that the script printed.
    pub lines: Vec<String>,
    /// Time from the start of QEMU to its end.
    pub elapsed: Duration,
    /// Log of all output, including the kernel's messages.
    pub log: PathBuf,
    pub kernel: Kernel,
}

impl Guest {
    /// A guest with 2 CPUs and 3 GiB that runs a busybox `sh` script. `name` becomes part of the log's name.
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

    /// Makes the guest's clock count instructions (one instruction is one nanosecond), on one CPU and without
    /// mitigations, which would obscure the cost of the code itself.
    #[must_use]
    pub fn counted(mut self) -> Self {
        self.counted = true;
        self.append("mitigations=off")
    }

    /// Adds words to the kernel's command line.
    #[must_use]
    pub fn append(mut self, words: impl Into<String>) -> Self {
        self.append.push(words.into());
        self
    }

    /// Makes the guest a complete Debian with systemd; the script is the last unit to start. `/mnt/ext4` is then on the
    /// root file system.
    #[must_use]
    pub fn debian(mut self, debian: Debian) -> Self {
        self.debian = Some(debian);
        self
    }

    /// Adds Debian packages with their dependencies.
    #[must_use]
    pub fn packages(mut self, packages: Packages) -> Self {
        self.packages.push(packages);
        self
    }

    /// Copies a file of the host to `path`.
    #[must_use]
    pub fn file(self, path: impl Into<String>, mode: u32, host: impl Into<PathBuf>) -> Self {
        self.entry(path.into(), mode, Content::Host(host.into()))
    }

    /// Writes a text to `path`.
    #[must_use]
    pub fn text(self, path: impl Into<String>, mode: u32, text: impl Into<String>) -> Self {
        self.entry(path.into(), mode, Content::Text(text.into()))
    }

    /// Limits the guest's run time.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    fn entry(mut self, path: String, mode: u32, content: Content) -> Self {
        self.entries.push(Entry { path, mode, content });
        self
    }

    /// Boots the guest, passes each line that its script prints to `on_line`, and waits for the end. Downloads what is
    /// missing. Errors are those of the host; failures inside the guest are in the outcome.
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
        // Shows the kernel's warnings, and makes a panic end QEMU at once (-no-reboot). On a busy host, the emulated
        // timer may miss the ticks with which the kernel checks it at boot; without no_timer_check, the kernel would
        // panic.
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
    /// None if the script ran to its end and the kernel had no complaint. Otherwise the failure, the kernel's release,
    /// and the end of the log.
    pub fn trouble(&self) -> Result<Option<String>> {
        let what = match &self.ending {
            Ending::Exited(_) => return Ok(None),
            Ending::Crashed(line) => format!("the kernel complained: {line}"),
            Ending::Hung(after) => format!("the guest was still running after {} s", after.as_secs()),
            Ending::Lost(why) => format!("the guest ended before its script ({why})"),
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

/// Path of a guest's log.
fn log_file(name: &str) -> Result<PathBuf> {
    Ok(folder("vm-logs")?.join(name))
}

/// A file name unique among the guests of all processes.
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
