//! What the kernel answers when it is asked directly.

use super::{Known, OF_SYSFS, Sources, Unknown, privileges, unread};
use crate::bpf;

/// What became of trying a kind of program: for fentry, of loading and attaching an empty one to the kernel's own test
/// function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trial {
    /// It attached, or would.
    Works,
    /// The kernel knows no such programs, or cannot attach them on this architecture.
    Absent,
    /// It was refused, and how: for want of privileges, or by a policy of the system.
    Refused(String),
    /// Not tried.
    NotTried,
}

impl Trial {
    /// Loads and attaches the program, and takes it away again.
    pub fn run(sources: &Sources) -> Self {
        if !sources.ask_kernel {
            return Self::NotTried;
        }
        match bpf::has_trampolines() {
            Ok(true) => Self::Works,
            Ok(false) => Self::Absent,
            Err(why) => Self::refused(sources, &why),
        }
    }

    /// Loads a program for kprobe.multi, and attaches it to nothing.
    pub fn multi(sources: &Sources) -> Self {
        if !sources.ask_kernel {
            return Self::NotTried;
        }
        match bpf::has_links() {
            Ok(true) => Self::Works,
            Ok(false) => Self::Absent,
            Err(error) => Self::refused(sources, &error.to_string()),
        }
    }

    fn refused(sources: &Sources, why: &str) -> Self {
        let filter = privileges::seccomp(sources).map(|filter| format!("; {filter}"));
        Self::Refused(format!("{why}{}", filter.unwrap_or_default()))
    }
}

/// Whether the kernel has the kprobe PMU: aya attaches kprobes through it.
pub(super) fn kprobe_pmu(sources: &Sources) -> Known<bool> {
    let devices = sources.sys.join("bus/event_source/devices");
    match devices.try_exists() {
        Ok(true) => Ok(devices.join("kprobe/type").exists()),
        Ok(false) => Err(unread(&sources.sys, OF_SYSFS, &devices, "not there")),
        Err(error) => Err(Unknown::new(devices.display(), error)),
    }
}
