//! What this process may do, and the settings that restrict it.

use std::{collections::BTreeSet, fs, io::Read, path::Path};

use caps::{CapSet, Capability};
use rustix::process::{Resource, geteuid, getrlimit};

use super::{
    Known, OF_PROCFS, Sources, Unknown,
    mounts::{self, Lookup},
    unread,
};

/// The kernel's lockdown state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lockdown {
    /// No restriction, or a kernel without lockdown.
    None,
    /// The kernel may not be modified; tracing works.
    Integrity,
    /// Nothing may be read out of the kernel either: no kprobe, no read of kernel memory from BPF.
    Confidentiality,
}

impl Lockdown {
    /// The kernel's name for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Integrity => "integrity",
            Self::Confidentiality => "confidentiality",
        }
    }

    /// Reads `none [integrity] confidentiality`.
    fn parse(text: &str) -> Option<Self> {
        let chosen = text.split_once('[')?.1.split_once(']')?.0;
        [Self::None, Self::Integrity, Self::Confidentiality].into_iter().find(|state| state.name() == chosen)
    }

    fn read(sources: &Sources) -> Known<Self> {
        let mounts = [sources.sys.join("kernel/security")];
        match mounts::open("securityfs", &mounts, "lsm", "lockdown", sources.ask_kernel) {
            Lookup::Found(mut file) => {
                let mut text = String::new();
                file.read_to_string(&mut text).map_err(|error| Unknown::new("lockdown", error))?;
                Self::parse(&text).ok_or_else(|| Unknown::new("lockdown", format!("not understood: {text:?}")))
            }
            Lookup::Absent => Ok(Self::None),
            Lookup::Unknown(reason) => Err(Unknown(reason)),
        }
    }
}

/// The link of the initial user namespace: `PROC_USER_INIT_INO` of `include/linux/proc_ns.h`.
const INITIAL_USER_NAMESPACE: &str = "user:[4026531837]";

/// Rights of this process, and the system's settings about them.
#[derive(Clone, Debug)]
pub struct Privileges {
    /// Effective capabilities by name (`CAP_BPF`).
    pub capabilities: Known<BTreeSet<String>>,
    /// This process is in a user namespace of its own: whatever it holds there, the kernel asks in the initial one. Taken as not
    /// where it cannot be told.
    pub user_namespace: bool,
    /// Effective user.
    pub euid: u32,
    /// `kernel.perf_event_paranoid`.
    pub perf_event_paranoid: Known<i32>,
    /// `kernel.unprivileged_bpf_disabled`.
    pub unprivileged_bpf_disabled: Known<i32>,
    /// `kernel.kptr_restrict`.
    pub kptr_restrict: Known<i32>,
    /// Lockdown.
    pub lockdown: Known<Lockdown>,
    /// Soft limit of `RLIMIT_MEMLOCK` in bytes; `None` is unlimited.
    pub memlock: Option<u64>,
}

/// What an errno of bpf(2) does not say: a filter of system calls answers with one of its choice.
pub fn seccomp(sources: &Sources) -> Option<&'static str> {
    let status = fs::read_to_string(sources.proc.join("self/status")).ok()?;
    let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:")).map(str::trim);
    (mode == Some("2")).then_some("a seccomp filter is on this process, which may be what refuses bpf(2)")
}

impl Privileges {
    /// Reads all of it.
    pub fn read(sources: &Sources) -> Self {
        let sysctl = |name: &str| number(&sources.proc, &sources.proc.join("sys/kernel").join(name));
        Self {
            capabilities: caps::read(None, CapSet::Effective)
                .map(|set| set.iter().map(Capability::to_string).collect())
                .map_err(|error| Unknown::new("effective capabilities", error)),
            user_namespace: fs::read_link(sources.proc.join("self/ns/user"))
                .is_ok_and(|link| link.as_os_str() != INITIAL_USER_NAMESPACE),
            euid: geteuid().as_raw(),
            perf_event_paranoid: sysctl("perf_event_paranoid"),
            unprivileged_bpf_disabled: sysctl("unprivileged_bpf_disabled"),
            kptr_restrict: sysctl("kptr_restrict"),
            lockdown: Lockdown::read(sources),
            memlock: getrlimit(Resource::Memlock).current,
        }
    }

    /// Whether the capability is held, or CAP_SYS_ADMIN, which stood for it before 5.8 and still does.
    /// Where the capabilities are unknown it is taken as held: the kernel will say.
    pub fn may(&self, capability: &str) -> bool {
        self.holds(capability) || self.holds("CAP_SYS_ADMIN")
    }

    /// Whether this very capability is held, and where it counts; taken as held where unknown.
    pub fn holds(&self, capability: &str) -> bool {
        !self.user_namespace && self.capabilities.as_ref().map_or(true, |set| set.contains(capability))
    }
}

fn number(proc: &Path, path: &Path) -> Known<i32> {
    let text = fs::read_to_string(path).map_err(|error| unread(proc, OF_PROCFS, path, error))?;
    text.trim().parse().map_err(|error| Unknown::new(path.display(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lockdown_is_the_word_in_brackets() {
        assert_eq!(Lockdown::parse("none [integrity] confidentiality\n"), Some(Lockdown::Integrity));
        assert_eq!(Lockdown::parse("[none] integrity confidentiality\n"), Some(Lockdown::None));
        assert_eq!(Lockdown::parse("none integrity\n"), None);
    }

    #[test]
    fn a_mounted_securityfs_without_the_file_is_no_lockdown() {
        let root = tempfile::tempdir().expect("a folder");
        let security = root.path().join("kernel/security");
        fs::create_dir_all(&security).expect("a mount point");
        let sources =
            Sources { proc: root.path().into(), sys: root.path().into(), boot: root.path().into(), ask_kernel: false };
        assert!(Lockdown::read(&sources).is_err());
        fs::write(security.join("lsm"), "capability").expect("a marker");
        assert_eq!(Lockdown::read(&sources), Ok(Lockdown::None));
        fs::write(security.join("lockdown"), "none integrity [confidentiality]").expect("a state");
        assert_eq!(Lockdown::read(&sources), Ok(Lockdown::Confidentiality));
    }
}
