//! What the arguments ask for, checked: the rest of the program takes this.

use std::{ffi::OsString, os::unix::ffi::OsStrExt as _, path::Path, time::Duration};

use super::args;
use crate::{
    kernel::Hierarchy,
    probe::{
        mode::AttachMode,
        plan::{Filters, Wish},
    },
};

/// An argument that cannot be followed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// No such process.
    #[error("there is no process {0}: give the id of one that runs (see ps)")]
    NoProcess(u32),
    /// Too long for `task_struct.comm`.
    #[error("--comm {0}: the kernel keeps 15 bytes of a name; give its first 15")]
    LongComm(String),
    /// A comm ends at its first zero.
    #[error("--comm: a name is not empty")]
    EmptyComm,
    /// Not a power of two.
    #[error("--buffer {0}: the size must be a power of two, such as 1, 4 or 64")]
    BufferSize(u32),
    /// The command is not to be found.
    #[error("cannot find the command {0}: give a path, or a name in PATH")]
    NoCommand(String),
    /// The command is there and cannot be run.
    #[error("{0} cannot be run: it is not an executable file")]
    NotExecutable(String),
}

/// Bytes of `task_struct.comm`.
const COMM: usize = 16;

/// Which registrations, and until when.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Whose calls.
    pub filters: Filters,
    /// Process whose end ends the session.
    pub pid: Option<u32>,
    /// Time limit.
    pub duration: Option<Duration>,
    /// Command to run, its program found.
    pub command: Option<Vec<OsString>>,
}

/// `CLOCK_MONOTONIC` as the kernel stamps processes with it; the end of all time where a time namespace shifts ours.
fn now_ns() -> u64 {
    let offsets = std::fs::read_to_string("/proc/self/timens_offsets").ok();
    if may_be_shifted(offsets.as_deref(), Path::new("/proc/self").exists()) {
        return u64::MAX;
    }
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let now = Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0));
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// Whether this process's monotonic clock may differ from the kernel's. A kernel without time namespaces (before 5.6) has no
/// `offsets`; nor has a /proc of another PID namespace, where this process has no folder.
fn may_be_shifted(offsets: Option<&str>, has_folder: bool) -> bool {
    let Some(offsets) = offsets else { return !has_folder };
    let shift = offsets.lines().find_map(|line| line.strip_prefix("monotonic")).unwrap_or_default();
    shift.split_whitespace().any(|part| part != "0")
}

impl Scope {
    /// Checks a session's scope against this machine.
    pub fn new(raw: &args::Scope) -> Result<Self, ConfigError> {
        let mut filters = Filters::default();
        if let Some(pid) = raw.pid {
            if pid == 0 || !Path::new(&format!("/proc/{pid}")).exists() {
                return Err(ConfigError::NoProcess(pid));
            }
            filters.pid = Some((pid, now_ns()));
        }
        if let Some(uid) = raw.uid {
            filters.uid = Some(uid);
        }
        if let Some(comm) = &raw.comm {
            let bytes = comm.as_bytes();
            if bytes.len() >= COMM {
                return Err(ConfigError::LongComm(comm.to_string_lossy().into_owned()));
            }
            if bytes.is_empty() {
                return Err(ConfigError::EmptyComm);
            }
            let mut padded = [0; COMM];
            padded[..bytes.len()].copy_from_slice(bytes);
            filters.comm = Some(padded);
        }
        let command = if raw.argv.is_empty() { None } else { Some(find_command(&raw.argv)?) };
        filters.descent = command.is_some();
        Ok(Self { filters, pid: raw.pid, duration: raw.duration, command })
    }

    /// In words, as the reports say it.
    pub fn shown(&self) -> String {
        let Filters { pid, uid, comm, descent, .. } = &self.filters;
        let named = |comm: &[u8; COMM]| {
            let name = comm.split(|byte| *byte == 0).next().unwrap_or_default();
            format!("tasks named {}", String::from_utf8_lossy(name))
        };
        let filters = [
            pid.map(|(pid, _)| format!("process {pid}")),
            uid.map(|uid| format!("user {uid}")),
            comm.as_ref().map(named),
            descent.then(|| "the command and its descendants".to_owned()),
        ];
        let filters: Vec<_> = filters.into_iter().flatten().collect();
        if filters.is_empty() { "the whole machine".to_owned() } else { filters.join(", ") }
    }
}

/// The command with its program's path in front, found as a shell would.
fn find_command(argv: &[OsString]) -> Result<Vec<OsString>, ConfigError> {
    let name = argv.first().cloned().unwrap_or_default();
    let shown = name.to_string_lossy().into_owned();
    let is_path = shown.contains('/');
    let found = if is_path {
        Some(Path::new(&name).to_owned()).filter(|path| path.exists())
    } else {
        let folders = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
        std::env::split_paths(&folders).map(|folder| folder.join(&name)).find(|path| is_executable(path))
    };
    let path = found.ok_or_else(|| ConfigError::NoCommand(shown.clone()))?;
    if !is_executable(&path) {
        return Err(ConfigError::NotExecutable(shown));
    }
    Ok(std::iter::once(path.into_os_string()).chain(argv.iter().skip(1).cloned()).collect())
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// What a subcommand wants of the plan.
pub fn wish(probes: &args::Probes, lookups: bool, filters: &Filters) -> Wish {
    Wish {
        attach: AttachMode::from(probes.attach),
        lookups,
        ring: true,
        tables: false,
        filters: filters.clone(),
        registration_returns: true,
        lean: false,
        calls: true,
        locks: false,
        phases: false,
        avoid: probes.avoid.clone(),
        ..Wish::default()
    }
}

/// What the service wants: the aggregates, at the least cost. A registration's end is the ledger's tracepoint, which
/// comes some ten instructions after the function's return and is never missed.
pub fn service_wish(probes: &args::Probes, lookups: bool, ring: bool, calls: bool) -> Wish {
    let wish = wish(probes, lookups, &Filters::default());
    Wish { registration_returns: false, lean: true, ring, tables: ring, calls, ..wish }
}

/// Workloads that have series of their own, where the user does not say.
const WORKLOADS: u32 = 200;

/// How many workloads to keep apart, and by which cgroups; `None` where none are wanted.
pub fn workloads(wanted: Option<u32>, wish: Wish) -> Wish {
    let cap = wanted.unwrap_or(WORKLOADS);
    if cap == 0 {
        return wish;
    }
    let hierarchy = Hierarchy::find(Path::new("/proc")).unwrap_or_else(|unknown| {
        tracing::warn!(
            "cgroups that are gone keep their place, since it is not known where they are mounted: {unknown}"
        );
        Hierarchy::default()
    });
    Wish { workloads: Some((cap, hierarchy)), ..wish }
}

/// Puts what is measured on request into what is to be hooked and what the eBPF side is to do.
pub fn with_details(wish: Wish, details: args::Details) -> Wish {
    Wish { locks: details.locks, phases: details.phases, ..wish }
}

/// Bytes of the ring buffer.
pub fn ring_bytes(mebibytes: u32) -> Result<u32, ConfigError> {
    if mebibytes.is_power_of_two() { Ok(mebibytes << 20) } else { Err(ConfigError::BufferSize(mebibytes)) }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    fn scope() -> args::Scope {
        args::Scope { pid: None, comm: None, uid: None, duration: None, argv: Vec::new() }
    }

    #[test]
    fn a_clock_that_is_not_known_to_be_the_kernels_may_be_shifted() {
        let offsets = |monotonic: &str| format!("monotonic  {monotonic}\nboottime            0         0\n");
        assert!(!may_be_shifted(Some(&offsets("         0         0")), true));
        assert!(may_be_shifted(Some(&offsets("    -86400         0")), true));
        assert!(may_be_shifted(Some(&offsets("         0         5")), true));
        // A kernel before 5.6, and a /proc of another PID namespace.
        assert!(!may_be_shifted(None, true));
        assert!(may_be_shifted(None, false));
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let error = Scope::new(&args::Scope { pid: Some(u32::MAX), ..scope() }).unwrap_err();
        assert_eq!(error, ConfigError::NoProcess(u32::MAX));
    }

    #[test]
    fn a_name_is_padded_with_zeros() {
        let scope = Scope::new(&args::Scope { comm: Some("fio".into()), ..scope() }).unwrap();
        assert_eq!(scope.filters.comm, Some(*b"fio\0\0\0\0\0\0\0\0\0\0\0\0\0"));
    }

    #[test]
    fn a_name_longer_than_the_kernel_keeps_is_refused() {
        let comm = "sixteen-bytes-ok".to_owned();
        let error = Scope::new(&args::Scope { comm: Some(comm.clone().into()), ..scope() }).unwrap_err();
        assert_eq!(error, ConfigError::LongComm(comm));
        let error = Scope::new(&args::Scope { comm: Some(OsString::new()), ..scope() }).unwrap_err();
        assert_eq!(error, ConfigError::EmptyComm);
    }

    #[test]
    fn a_name_that_was_cut_inside_a_character_can_be_given() {
        // The kernel keeps 15 bytes of sixteen.
        let comm = OsStr::from_bytes(&"aaaaaaaaaaaaaaé".as_bytes()[..15]).to_owned();
        let scope = Scope::new(&args::Scope { comm: Some(comm.clone()), ..scope() }).unwrap();
        assert_eq!(scope.filters.comm.unwrap()[..15], *comm.as_bytes());
        let words = [OsStr::new("pinscope"), OsStr::new("report"), OsStr::new("--comm"), &comm];
        let arguments = <args::Arguments as clap::Parser>::try_parse_from(words).unwrap();
        assert!(matches!(arguments.command, args::Command::Report(report) if report.scope.comm == Some(comm)));
    }

    #[test]
    fn a_command_is_found_in_the_path() {
        let command = find_command(&["sh".into(), "-c".into()]).unwrap();
        assert!(Path::new(&command[0]).is_absolute());
        assert_eq!(command[1], "-c");
        assert!(matches!(find_command(&["no-such-command".into()]), Err(ConfigError::NoCommand(_))));
        assert!(matches!(find_command(&["/etc/passwd".into()]), Err(ConfigError::NotExecutable(_))));
    }
}
