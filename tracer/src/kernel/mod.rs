//! The facts of the running kernel, as one value.
//!
//! Everything here is read once, at start. What could not be read is [`Unknown`] with its reason, never a
//! default: the plan decides what a missing fact means.

pub mod addresses;
pub mod btf;
pub mod cgroups;
mod contain;
pub mod features;
#[cfg(test)]
pub(crate) mod fixture;
mod mounts;
mod namespace;
pub mod preemption;
pub mod privileges;
pub mod prototype;
mod switches;
pub mod symbols;
pub mod traceable;

use std::path::{Path, PathBuf};

pub use btf::Types;
pub use cgroups::Hierarchy;
pub use features::Trial;
pub use preemption::Preemption;
pub use privileges::{Lockdown, Privileges, seccomp};
pub use prototype::Prototype;
pub use switches::Switches;
pub use symbols::Symbols;
pub use traceable::Traceable;

/// A fact that could not be had, and why, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unknown(pub String);

impl Unknown {
    /// What was being read, and the error it ended with.
    pub(crate) fn new(what: impl std::fmt::Display, error: impl std::fmt::Display) -> Self {
        Self(format!("{what}: {error}"))
    }
}

/// Why nothing of a filesystem can be read.
pub const NOT_MOUNTED: &str = "is not mounted";

/// Why a file under `/proc` or `/sys` cannot be read: one that is missing because all are says so. `marker` is what the
/// filesystem always has.
pub(crate) fn unread(root: &Path, marker: &str, file: &Path, error: impl std::fmt::Display) -> Unknown {
    if root.join(marker).exists() {
        Unknown::new(file.display(), error)
    } else {
        Unknown(format!("{} {NOT_MOUNTED}", root.display()))
    }
}

/// What sysfs and procfs always have.
pub(crate) const OF_SYSFS: &str = "kernel";
pub(crate) const OF_PROCFS: &str = "self";

pub use crate::memory::page_size;

/// A fact, or why it is not known.
pub type Known<T> = Result<T, Unknown>;

/// What the facts are asked about; only this much of BTF, kallsyms and the traceable list is kept.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Kernel functions.
    pub functions: &'a [&'a str],
    /// Members, as `struct.member`.
    pub members: &'a [&'a str],
    /// Tracepoints, without their group.
    pub tracepoints: &'a [&'a str],
    /// Members of `enum bpf_func_id`, without `BPF_FUNC_`.
    pub helpers: &'a [&'a str],
    /// Types whose mere presence says something.
    pub structs: &'a [&'a str],
    /// Members of anonymous enums.
    pub enumerators: &'a [&'a str],
}

/// Where the facts are read from; a test puts a folder of its own in place of the system's.
#[derive(Clone, Debug)]
pub struct Sources {
    /// `/proc`.
    pub proc: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
    /// `/boot`.
    pub boot: PathBuf,
    /// Whether the kernel itself may be asked: system calls, a detached mount, the trial load of a program.
    pub ask_kernel: bool,
}

impl Default for Sources {
    fn default() -> Self {
        Self { proc: "/proc".into(), sys: "/sys".into(), boot: "/boot".into(), ask_kernel: true }
    }
}

/// The kernel's version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// As `uname -r` gives it.
    pub text: String,
    /// Major and minor; `None` where the text does not begin with two numbers.
    pub version: Option<(u32, u32)>,
}

impl Release {
    /// Reads the two numbers at the front of `text`.
    pub fn parse(text: &str) -> Self {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        let version = match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
            _ => None,
        };
        Self { text: text.to_owned(), version }
    }

    /// Whether it is known to be `version` or newer.
    pub fn is_from(&self, version: (u32, u32)) -> bool {
        self.version.is_some_and(|own| own >= version)
    }

    /// Whether it is known to be older than `version`.
    pub fn is_before(&self, version: (u32, u32)) -> bool {
        self.version.is_some_and(|own| own < version)
    }
}

/// What is known of this kernel and of this process's rights in it.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The version.
    pub release: Release,
    /// Machine architecture as `uname -m` gives it.
    pub machine: String,
    /// BTF.
    pub types: Known<Types>,
    /// kallsyms.
    pub symbols: Known<Symbols>,
    /// The functions that ftrace can hook.
    pub traceable: Traceable,
    /// Whether the kernel has the kprobe PMU, through which kprobes attach.
    pub kprobe_pmu: Known<bool>,
    /// Whether tracefs, through which classic tracepoints attach, has the tracepoint `io_uring_register`, and so its group.
    pub ledger_event: Known<bool>,
    /// What the kernel answered to a trial fentry program.
    pub fentry: Trial,
    /// Whether it has links of kprobe.multi; not asked at a glance where the kernel does not preempt.
    pub multi: Trial,
    /// Whether a task can be preempted inside a program.
    pub preemption: Preemption,
    /// Rights and the settings that restrict them.
    pub privileges: Privileges,
    /// What keeps hooks from firing.
    pub switches: Switches,
    /// Inode number of the PID namespace that processes are numbered by here; 0 for the initial one.
    pub pid_namespace: Known<u32>,
}

impl Facts {
    /// Reads all of it. Never fails: what cannot be read is unknown in its place.
    pub fn gather(sources: &Sources, wanted: &Wanted<'_>) -> Self {
        Self::glance(sources, wanted).completed(sources, wanted)
    }

    /// Reads what a session plans by as a rule: BTF, and what is small. The kernel takes longest to print the rest (kallsyms and
    /// the traceable functions, some 200,000 lines), and a hook that attaches proves the same.
    pub fn glance(sources: &Sources, wanted: &Wanted<'_>) -> Self {
        let uname = rustix::system::uname();
        let privileges = Privileges::read(sources);
        let ledger_event = match empty_tracefs(&privileges) {
            None => traceable::has_event(sources, "io_uring/io_uring_register"),
            Some(empty) => Err(empty),
        };
        // Under lockdown nothing is to be mounted; see `empty_tracefs`.
        let unmounted =
            Sources { ask_kernel: sources.ask_kernel && empty_tracefs(&privileges).is_none(), ..sources.clone() };
        let release = Release::parse(&uname.release().to_string_lossy());
        let preemption = Preemption::read(&unmounted, &uname.version().to_string_lossy(), &release.text);
        Self {
            multi: if preemption.possible { Trial::multi(sources) } else { Trial::NotTried },
            preemption,
            release,
            machine: uname.machine().to_string_lossy().into_owned(),
            types: types(&sources.sys, wanted),
            symbols: Err(Unknown("kallsyms was not read".to_owned())),
            traceable: Traceable::Unknown("the list was not read".to_owned()),
            kprobe_pmu: features::kprobe_pmu(sources),
            ledger_event,
            fentry: Trial::NotTried,
            switches: Switches::read(&unmounted),
            privileges,
            pid_namespace: namespace::pid(&sources.proc),
        }
    }

    /// The same with the rest: for who wants to know why something cannot be hooked.
    #[must_use]
    pub fn completed(self, sources: &Sources, wanted: &Wanted<'_>) -> Self {
        let traceable = match empty_tracefs(&self.privileges) {
            None => Traceable::read(sources, wanted.functions),
            Some(empty) => Traceable::Unknown(empty.to_string()),
        };
        Self {
            symbols: Symbols::read(&sources.proc.join("kallsyms"), wanted.functions),
            traceable,
            // A trial is an attachment too.
            fentry: if self.switches.ftrace_off { Trial::NotTried } else { Trial::run(sources) },
            multi: if self.multi == Trial::NotTried { Trial::multi(sources) } else { self.multi },
            ..self
        }
    }

    /// Whether kallsyms lists the function, or a copy of it under a changed name; where it was not read, whether BTF has
    /// it.
    pub fn mentions(&self, function: &str) -> bool {
        match (&self.symbols, &self.types) {
            (Ok(symbols), _) => symbols.functions.contains_key(function),
            (Err(_), Ok(types)) => types.functions.contains_key(function),
            (Err(_), Err(_)) => false,
        }
    }
}

/// A parser that stumbles over odd BTF ends nothing but its reading, and says nothing.
fn types(sys: &Path, wanted: &Wanted<'_>) -> Known<Types> {
    let path = sys.join("kernel/btf/vmlinux");
    if !sys.join(OF_SYSFS).exists() {
        return Err(Unknown(format!("{} {NOT_MOUNTED}", sys.display())));
    }
    let read = contain::quietly(|| Types::read(&path, wanted));
    read.unwrap_or_else(|| Err(Unknown(format!("{}: its reader ended early", path.display()))))
}

/// Under lockdown the kernel keeps nothing in tracefs, not even a mount of its own; 6.12 crashes when the only mount of it
/// goes away (`tracefs_destroy_inode`). So nobody is to make one.
fn empty_tracefs(privileges: &Privileges) -> Option<Unknown> {
    (privileges.lockdown == Ok(Lockdown::Confidentiality)).then(|| Unknown("lockdown empties tracefs".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_gives_its_two_numbers() {
        for (text, version) in [
            ("5.10.0-32-cloud-amd64", Some((5, 10))),
            ("7.3.4+deb14-cloud-amd64", Some((7, 3))),
            ("6.18-rc1", Some((6, 18))),
            ("next", None),
            ("", None),
            ("99999999999.1", None),
        ] {
            assert_eq!(Release::parse(text).version, version, "{text}");
        }
        assert!(Release::parse("5.4.0").is_before((5, 10)));
        assert!(!Release::parse("unknown").is_before((5, 10)));
    }

    #[test]
    fn an_empty_system_gives_unknowns_with_their_paths() {
        let root = tempfile::tempdir().expect("a folder");
        let sources = Sources {
            proc: root.path().join("proc"),
            sys: root.path().join("sys"),
            boot: root.path().into(),
            ask_kernel: false,
        };
        let facts = Facts::gather(&sources, &crate::probe::table::wanted());
        let reason = facts.types.expect_err("no BTF there").to_string();
        assert!(reason.ends_with("sys is not mounted"), "{reason}");
        let reason = facts.pid_namespace.expect_err("no namespace there").to_string();
        assert!(reason.ends_with("proc is not mounted"), "{reason}");
        let reason = facts.kprobe_pmu.expect_err("no devices there").to_string();
        assert!(reason.ends_with("sys is not mounted"), "{reason}");
        assert!(facts.symbols.is_err() && facts.privileges.perf_event_paranoid.is_err());
        assert!(matches!(facts.traceable, Traceable::Unknown(_)));
    }
}
