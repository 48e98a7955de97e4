//! Which test families each kernel leaves out in an attach mode, because other kernels or modes cover them. Guests are
//! emulated: a test that starts its own session takes ten seconds there. Tests that belong to none of the families
//! below share one session.

use crate::vm::kernel::{USUAL, preempts};

/// Oldest series of the matrix. Its kernel cannot walk VMAs.
const OLDEST: &str = "5.10";
/// The most common series before [`USUAL`].
pub const OLDER: &str = "6.1";
/// The series after [`USUAL`] that distributions support for long.
const LATER: &str = "6.18";
/// Newest series of the matrix.
const NEWEST: &str = "7.3";

/// Tests of the command line, filters and the ends of sessions, which do not depend on the hooks.
const COMMAND_LINE: [&str; 2] = ["cli_", "session_"];
/// Tests of the answers and of third-party programs, which do not depend on the kernel.
const ANSWERS: [&str; 3] = ["answers_", "liburing_", "scenario_"];
/// Tests of hooks attached on request, and of rings.
const ON_REQUEST: [&str; 5] = ["audit_", "calls_", "locks_", "phases_", "rings_"];
/// Tests that attribute calls to tasks and their parents.
const NAMESPACES: [&str; 1] = ["namespaces_"];
/// Tests of load, tasks in unusual states, fio and evidence.
const LOAD: [&str; 4] = ["storm_", "tasks_", "fio_", "evidence_"];
/// Tests of features that only the service has, except for those with their own hooks.
const SERVICE: [&str; 4] = ["daemon_workloads_", "daemon_runs_", "daemon_process_", "service_"];
/// Tests of hooks that only the service attaches.
const REGISTERED: [&str; 1] = ["daemon_registered_"];
/// All other tests that start a daemon.
const DAEMON: [&str; 1] = ["daemon_"];
/// The longest of the tests that share a session. The only hook they depend on is the walk.
const LONG: [&str; 3] = ["vmas_", "time_", "random_"];
/// Tests that take minutes in an emulated guest with shared CPUs. They run only where nothing is left out.
const RARE: [&str; 1] = ["session_ends_in_a_storm"];

/// An attach mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Kprobe,
    Fentry,
    Multi,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Self::Kprobe => "kprobe",
            Self::Fentry => "fentry",
            Self::Multi => "kprobe.multi",
        }
    }

    /// The modes that a series is tested in. The last one is pinscope's default on that series.
    pub fn of(series: &str) -> [Self; 2] {
        if preempts(series) { [Self::Fentry, Self::Multi] } else { [Self::Kprobe, Self::Fentry] }
    }

    /// Whether this is the secondary mode of that series, where it is enough to show that every hook works.
    fn is_second(self, series: &str) -> bool {
        Self::of(series)[0] == self
    }
}

/// Prefixes of the names of the tests that are left out.
pub fn left_out(series: &str, mode: Mode) -> Vec<&'static str> {
    let families: &[&[&str]] = match (series, mode.is_second(series)) {
        // Nothing is walked there; other tests cover what the answers say about that.
        (OLDEST, true) => &[&["session_", "answers_", "liburing_"], &SERVICE, &REGISTERED],
        (USUAL, true) => &[&NAMESPACES, &ANSWERS, &ON_REQUEST, &LOAD, &SERVICE, &REGISTERED],
        (OLDER | NEWEST, true) => &[&NAMESPACES, &COMMAND_LINE, &ANSWERS, &ON_REQUEST, &LOAD, &DAEMON],
        (_, true) => &[&NAMESPACES, &COMMAND_LINE, &ANSWERS, &ON_REQUEST, &LOAD, &DAEMON, &LONG],
        (USUAL, false) => &[&COMMAND_LINE],
        (NEWEST, false) => &[&COMMAND_LINE, &ANSWERS, &SERVICE, &["rings_"]],
        (OLDER, false) => &[&NAMESPACES, &COMMAND_LINE, &ANSWERS, &ON_REQUEST],
        (LATER, false) => &[&NAMESPACES, &COMMAND_LINE, &ANSWERS, &ON_REQUEST, &SERVICE, &REGISTERED],
        (_, false) => &[&NAMESPACES, &COMMAND_LINE, &ANSWERS, &ON_REQUEST, &LOAD, &SERVICE, &REGISTERED, &["random_"]],
    };
    [families, &[&RARE]].concat().concat()
}

/// Whether tests run at reduced size. Full size runs on the oldest kernels and the usual one.
pub fn is_quick(series: &str) -> bool {
    ![OLDEST, OLDER, USUAL].contains(&series)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::kernel::SERIES;

    #[test]
    fn every_family_runs_in_two_modes_or_is_independent_of_them() {
        let all = [&COMMAND_LINE[..], &NAMESPACES, &ANSWERS, &ON_REQUEST, &LOAD, &SERVICE, &REGISTERED, &DAEMON, &LONG]
            .concat();
        for family in all {
            let runs = |mode: &Mode| {
                let tested = |series: &&&str| Mode::of(series).contains(mode);
                SERIES.iter().filter(tested).any(|series| !left_out(series, *mode).contains(&family))
            };
            let modes = [Mode::Kprobe, Mode::Fentry, Mode::Multi].into_iter().filter(runs).count();
            let by_one = [&COMMAND_LINE[..], &ANSWERS, &SERVICE, &REGISTERED].concat();
            assert!(modes > 1 || by_one.contains(&family) && modes == 1, "{family}");
        }
    }

    #[test]
    fn every_kernel_has_a_daemon() {
        for series in SERIES {
            assert!(!left_out(series, Mode::of(series)[1]).contains(&"daemon_"), "{series}");
        }
    }
}
