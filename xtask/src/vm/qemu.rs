//! Finds a QEMU, runs it, and watches its output line by line.

use std::{
    env,
    fs::{self, File},
    io::{BufRead as _, BufReader, Read, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    apt::Archive,
    cache::{Cache, remove},
    exec::{read, show},
};

/// Emulation before version 9 crashes guests that are traced (7.2 in bookworm does so at cmpxchg16b and int3).
const OLDEST: u32 = 9;
const PROGRAM: &str = "qemu-system-x86_64";
/// Printed by /init after the script's end, followed by the exit code.
pub const EXIT_MARKER: &str = "PINSCOPE-GUEST-EXIT ";
/// Time for a failed kernel to print the reason.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// A QEMU that runs guests: the system's if it is recent enough, otherwise one in the cache.
#[derive(Clone, Debug)]
pub enum Qemu {
    System,
    /// Unpacked from Debian's packages with all its libraries; runs on any distribution.
    Cached(PathBuf),
}

impl Qemu {
    /// An installed or cached QEMU. Needs no network.
    pub fn find(cache: &Cache) -> Option<Self> {
        let system = read(Command::new(PROGRAM).arg("--version")).ok();
        if system.and_then(|said| major_version(&said)).is_some_and(|major| major >= OLDEST) {
            return Some(Self::System);
        }
        Some(cache.path(PLACE)).filter(|folder| folder.is_dir()).map(Self::Cached)
    }

    /// An installed or cached QEMU. Downloads one if there is none.
    pub fn get(cache: &Cache) -> Result<Self> {
        if let Some(found) = Self::find(cache) {
            return Ok(found);
        }
        let guard = cache.lock()?;
        let folder = cache.folder(PLACE, &guard, |folder| {
            println!(
                "setup: QEMU 10, to run guests; downloaded into the cache (the system has no QEMU {OLDEST} or newer)"
            );
            let archive = Archive::open(cache, &guard, "qemu", &["bookworm", "bookworm-backports"])?;
            let packages = archive.closure(&["qemu-system-x86"], "bookworm-backports")?;
            archive.unpack(&packages, folder, folder)
        })?;
        Ok(Self::Cached(folder))
    }

    /// A command that starts QEMU.
    pub fn command(&self) -> Command {
        let Self::Cached(root) = self else {
            return Command::new(PROGRAM);
        };
        let libraries = root.join("usr/lib/x86_64-linux-gnu");
        let paths = [&root.join("lib/x86_64-linux-gnu"), &libraries].map(|path| path.display().to_string()).join(":");
        // Started by its own loader, because the host's C library may not match.
        let mut command = Command::new(root.join("lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"));
        command.arg("--library-path").arg(paths).arg(root.join("usr/bin").join(PROGRAM));
        command.env("QEMU_MODULE_DIR", libraries.join("qemu"));
        for data in ["usr/share/qemu", "usr/share/seabios"] {
            command.arg("-L").arg(root.join(data));
        }
        command
    }

    /// Description of this QEMU for people.
    pub fn describe(&self) -> String {
        let version = read(self.command().arg("--version")).unwrap_or_default();
        let version = version.lines().next().unwrap_or("does not run").to_owned();
        match self {
            Self::System => format!("{version} (the system's)"),
            Self::Cached(root) => format!("{version} ({})", root.display()),
        }
    }
}

/// Folder of the cached QEMU.
const PLACE: &str = "qemu/bookworm-backports-1";

fn major_version(said: &str) -> Option<u32> {
    said.split("version ").nth(1)?.split('.').next()?.parse().ok()
}

/// Configuration of a virtual machine.
#[derive(Clone, Debug)]
pub struct Machine<'a> {
    pub cpus: u32,
    pub memory_mib: u32,
    /// The clock counts instructions: figures are reproducible, with one CPU.
    pub counted: bool,
    pub kernel: &'a Path,
    pub initrd: &'a Path,
    pub disk: &'a Path,
    pub append: &'a str,
}

impl Machine<'_> {
    fn arguments(&self, command: &mut Command) {
        command.args(["-M", "q35", "-cpu", "max", "-nodefaults", "-no-reboot", "-nographic", "-m"]);
        command.arg(self.memory_mib.to_string());
        if self.counted {
            command.args(["-accel", "tcg", "-icount", "shift=0,sleep=off", "-smp", "1"]);
        } else {
            command.args(["-accel", "tcg,thread=multi", "-smp"]).arg(self.cpus.to_string());
        }
        // The kernel writes to the first port and the script to the second, so their lines cannot mix.
        command.args(["-chardev", "file,id=kernel,path=/dev/stderr", "-serial", "chardev:kernel"]);
        command.args(["-chardev", "file,id=script,path=/dev/stdout", "-serial", "chardev:script"]);
        command.arg("-drive").arg(format!(
            "if=none,id=scratch,format=raw,snapshot=on,file={}",
            self.disk.display().to_string().replace(',', ",,")
        ));
        command.args(["-device", "nvme,drive=scratch,serial=scratch"]);
        command.arg("-kernel").arg(self.kernel).arg("-initrd").arg(self.initrd);
        command.arg("-append").arg(self.append);
    }
}

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The script ended with this exit code, and the kernel had no complaint.
    Exited(i32),
    /// The kernel crashed, or warned of a bug of its own: its first line about it.
    Crashed(String),
    /// The deadline passed.
    Hung(Duration),
    /// QEMU ended before the script did.
    Lost(String),
}

/// Results of a run: how it ended, and the script's lines.
#[derive(Clone, Debug)]
pub struct Run {
    pub ending: Ending,
    pub lines: Vec<String>,
    pub elapsed: Duration,
}

/// Boots a machine and watches it until it ends or the deadline passes.
pub fn run(
    qemu: &Qemu,
    machine: &Machine<'_>,
    log: &Path,
    deadline: Duration,
    on_line: &mut dyn FnMut(&str),
) -> Result<Run> {
    let mut command = qemu.command();
    machine.arguments(&mut command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut log = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    writeln!(log, "$ {}", show(&command))?;

    let started = Instant::now();
    let child = command.spawn().with_context(|| format!("cannot run `{}`", show(&command)))?;
    let mut child = KilledOnDrop(child);
    let (sender, lines) = mpsc::channel();
    forward(child.0.stdout.take(), &sender, Line::Script);
    forward(child.0.stderr.take(), &sender, Line::Kernel);
    drop(sender);

    let mut watch = Watch::default();
    let mut until = started + deadline;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) => {
                let since = started.elapsed().as_secs_f64();
                match &line {
                    Line::Script(text) => writeln!(log, "[{since:8.3}] {text}")?,
                    Line::Kernel(text) => writeln!(log, "[{since:8.3}] kernel: {text}")?,
                }
                let was_fatal = watch.fatal;
                if let Some(text) = watch.read_line(line) {
                    on_line(&text);
                }
                if watch.fatal && !was_fatal {
                    until = until.min(Instant::now() + LAST_WORDS);
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                if watch.crash.is_none() {
                    watch.hung = Some(deadline);
                    writeln!(log, "[{:8.3}] stopped by the deadline", started.elapsed().as_secs_f64())?;
                }
                child.0.kill().context("cannot end QEMU")?;
                break;
            }
        }
    }
    let status = child.0.wait().context("cannot wait for QEMU")?;
    Ok(Run { ending: watch.ending(&status.to_string()), lines: watch.lines, elapsed: started.elapsed() })
}

enum Line {
    Script(String),
    Kernel(String),
}

/// Forwards the lines that arrive on a pipe.
fn forward(pipe: Option<impl Read + Send + 'static>, to: &Sender<Line>, kind: fn(String) -> Line) {
    let Some(pipe) = pipe else { return };
    let to = to.clone();
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
            line.clear();
            if to.send(kind(text)).is_err() {
                break;
            }
        }
    });
}

/// State of a guest's output so far. Pure: lines in, ending out.
#[derive(Debug, Default)]
struct Watch {
    lines: Vec<String>,
    exit: Option<i32>,
    crash: Option<String>,
    /// The kernel has crashed; letting it continue is pointless.
    fatal: bool,
    hung: Option<Duration>,
    last_from_kernel: String,
}

impl Watch {
    /// Reads a line. Returns it if the script printed it.
    fn read_line(&mut self, line: Line) -> Option<String> {
        match line {
            Line::Script(text) => {
                if let Some(code) = text.strip_prefix(EXIT_MARKER) {
                    self.exit = code.trim().parse().ok();
                    return None;
                }
                self.lines.push(text.clone());
                Some(text)
            }
            Line::Kernel(text) => {
                if let Some(trouble) = trouble(&text) {
                    // A warning may precede an oops: the first line is more informative, the most severe one decides.
                    self.fatal |= trouble == Trouble::Fatal;
                    self.crash.get_or_insert_with(|| text.clone());
                }
                if !text.trim().is_empty() {
                    self.last_from_kernel = text;
                }
                None
            }
        }
    }

    fn ending(&self, status: &str) -> Ending {
        match (&self.crash, self.hung, self.exit) {
            (Some(line), ..) => Ending::Crashed(line.clone()),
            (None, Some(deadline), _) => Ending::Hung(deadline),
            (None, None, Some(code)) => Ending::Exited(code),
            (None, None, None) => {
                Ending::Lost(format!("QEMU: {status}; the kernel's last line: {}", self.last_from_kernel))
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Warning,
    Fatal,
}

/// Whether a line of the kernel's log reports a problem of the kernel.
fn trouble(line: &str) -> Option<Trouble> {
    const FATAL: [&str; 9] = [
        "Kernel panic",
        "Oops",
        "BUG:",
        "kernel BUG at",
        "general protection fault",
        "[#1]",
        "self-detected stall",
        "detected stalls on CPUs",
        "blocked for more than",
    ];
    const WARNING: [&str; 2] = ["[ cut here ]", "WARNING: "];
    if FATAL.iter().any(|sign| line.contains(sign)) {
        Some(Trouble::Fatal)
    } else if WARNING.iter().any(|sign| line.contains(sign)) {
        Some(Trouble::Warning)
    } else {
        None
    }
}

/// Kills its child process, and only this one, when dropped.
struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// File that is removed when dropped; its name is unique among guests.
pub struct Scratch(pub PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = remove(&self.0);
    }
}

/// The relevant lines of a log: from the kernel's first complaint on, otherwise the last lines.
pub fn tail(log: &Path) -> Result<String> {
    const BEFORE: usize = 10;
    const AFTER: usize = 60;
    let text = fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    let complaint = lines.iter().position(|line| line.contains("kernel: ") && trouble(line).is_some());
    let (from, to) = match complaint {
        Some(at) => (at.saturating_sub(BEFORE), (at + AFTER).min(lines.len())),
        None => (lines.len().saturating_sub(AFTER), lines.len()),
    };
    Ok(lines[from..to].join("\n"))
}

/// Checks that guests can run on this host.
pub fn check_host() -> Result<()> {
    if env::consts::ARCH != "x86_64" {
        bail!("guests run on x86_64 hosts only: this one is {}", env::consts::ARCH);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(lines: &[Line]) -> Watch {
        let mut watch = Watch::default();
        for line in lines {
            watch.read_line(match line {
                Line::Script(text) => Line::Script(text.clone()),
                Line::Kernel(text) => Line::Kernel(text.clone()),
            });
        }
        watch
    }

    fn kernel(text: &str) -> Line {
        Line::Kernel(text.to_owned())
    }

    fn script(text: &str) -> Line {
        Line::Script(text.to_owned())
    }

    #[test]
    fn a_clean_end_needs_the_marker() {
        let watch = watched(&[script("hello"), script("PINSCOPE-GUEST-EXIT 3")]);
        assert_eq!(watch.ending(""), Ending::Exited(3));
        assert_eq!(watch.lines, ["hello"]);
        let watch = watched(&[script("hello"), kernel("last words")]);
        let Ending::Lost(reason) = watch.ending("exit status: 0") else { panic!() };
        assert!(reason.contains("last words"));
    }

    #[test]
    fn a_kernel_in_trouble_is_a_failure_whatever_the_script_says() {
        for line in [
            "Kernel panic - not syncing: sysrq triggered crash",
            "BUG: kernel NULL pointer dereference, address: 0000000000000000",
            "Oops: 0002 [#1] PREEMPT SMP NOPTI",
            "watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [sh:1]",
            "rcu: INFO: rcu_preempt self-detected stall on CPU",
            "INFO: task fio:123 blocked for more than 120 seconds.",
            "int3: 0000 [#1] PREEMPT SMP",
        ] {
            let watch = watched(&[kernel(line), script("PINSCOPE-GUEST-EXIT 0")]);
            assert!(watch.fatal, "{line}");
            assert_eq!(watch.ending(""), Ending::Crashed(line.to_owned()));
        }
        let watch = watched(&[
            kernel("------------[ cut here ]------------"),
            kernel("WARNING: CPU: 0 PID: 1 at mm/gup.c:1 foo+0x1/0x2"),
            script("PINSCOPE-GUEST-EXIT 0"),
        ]);
        assert!(!watch.fatal);
        assert!(matches!(watch.ending(""), Ending::Crashed(_)));
    }

    #[test]
    fn a_script_may_print_what_it_likes() {
        let watch = watched(&[script("BUG: not the kernel's"), script("PINSCOPE-GUEST-EXIT 0")]);
        assert_eq!(watch.ending(""), Ending::Exited(0));
    }

    #[test]
    fn versions_of_qemu() {
        assert_eq!(major_version("QEMU emulator version 10.0.2 (Debian 1:10.0.2)"), Some(10));
        assert_eq!(major_version("QEMU emulator version 7.2.15"), Some(7));
        assert_eq!(major_version(""), None);
    }
}
