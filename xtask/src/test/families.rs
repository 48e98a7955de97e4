//! What a kernel's run leaves out in an attach mode, because its neighbours show it as well. Guests are emulated, and a
//! session that a test starts for itself takes ten seconds there; those that are in none of the families below share one.

use crate::vm::kernel::{USUAL, preempts};

/// The oldest of the matrix. No VMA can be walked there.
const OLDEST: &str = "5.10";
/// The kernel before [`USUAL`] that most machines have.
pub const OLDER: &str = "6.1";
/// The one after it that distributions keep for long.
const LATER: &str = "6.18";
/// The newest of the matrix.
const NEWEST: &str = "7.3";

/// Tests of the command line, of filters and ends of sessions: what knows nothing of the hooks.
const COMMAND_LINE: [&str; 2] = ["cli_", "session_"];
/// Tests of the answers and of programs that others wrote: what knows nothing of the kernel.
const ANSWERS: [&str; 3] = ["answers_", "liburing_", "scenario_"];
/// Tests of what is hooked on request, and of rings.
const ON_REQUEST: [&str; 5] = ["audit_", "calls_", "locks_", "phases_", "rings_"];
/// Tests of whose calls they are: what knows of tasks and their parents.
const NAMESPACES: [&str; 1] = ["namespaces_"];
/// Tests of load, of tasks in unusual states, of fio, of evidence.
const LOAD: [&str; 4] = ["storm_", "tasks_", "fio_", "evidence_"];
/// Tests of what only the service has, but for what needs hooks of its own.
const SERVICE: [&str; 4] = ["daemon_workloads_", "daemon_runs_", "daemon_process_", "service_"];
/// Tests of what the service alone hooks.
const REGISTERED: [&str; 1] = ["daemon_registered_"];
/// What else starts a daemon.
const DAEMON: [&str; 1] = ["daemon_"];
/// Of the tests that share a session those that take longest, and know of no hook but the walk.
const LONG: [&str; 3] = ["vmas_", "time_", "random_"];
/// Tests that take minutes in an emulated guest which shares its CPUs: only where nothing is left out.
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

    /// The modes that a series is tested in: last the one that pinscope takes there by itself.
    pub fn of(series: &str) -> [Self; 2] {
        if preempts(series) { [Self::Fentry, Self::Multi] } else { [Self::Kprobe, Self::Fentry] }
    }

    /// Whether it is the second best on that series: there it is to show that every hook is in its place.
    fn is_second(self, series: &str) -> bool {
        Self::of(series)[0] == self
    }
}

/// The beginnings of the names of tests that are left out.
pub fn left_out(series: &str, mode: Mode) -> Vec<&'static str> {
    let families: &[&[&str]] = match (series, mode.is_second(series)) {
        // Nothing is walked there: what the answers say of it, other tests show.
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

/// Whether tests run at their smaller size: all sizes come on the oldest kernels and the usual one.
pub fn is_quick(series: &str) -> bool {
    ![OLDEST, OLDER, USUAL].contains(&series)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::kernel::SERIES;

    #[test]
    fn every_family_runs_somewhere_in_each_mode_or_knows_nothing_of_it() {
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
