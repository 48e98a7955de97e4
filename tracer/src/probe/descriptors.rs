//! How many files a start opens: each map, program and attachment is one.

use std::io;

use super::{
    object,
    plan::{Hook, Kind, Plan},
};
use crate::limits;

/// For what is open for a moment only, and for what a session opens to read its maps by.
const SPARE: usize = 16;

/// What is open where `/proc` does not say: the outputs, the runtime's, the command's socket.
const OPEN: usize = 16;

/// Why the plan cannot be carried out with as many open files as there may be; `None` where it can.
pub fn too_few(plan: &Plan) -> Option<String> {
    let open = std::fs::read_dir("/proc/self/fd").map_or(OPEN, Iterator::count);
    let wanted = open + object::maps() + plan.hooks.iter().map(of).sum::<usize>() + SPARE;
    let limit = limits::open_files().filter(|limit| *limit < wanted as u64)?;
    Some(format!(
        "the limit of open files is {limit} (ulimit -n), and a start opens {wanted}: raise it to {wanted} or more"
    ))
}

fn of(hook: &Hook) -> usize {
    match hook.kind {
        Kind::Iterator | Kind::Call => 1,
        Kind::Fentry | Kind::Fexit | Kind::RawTracepoint | Kind::Multi | Kind::MultiReturn => 2,
        // Between program and link there is a perf event.
        Kind::Kprobe | Kind::Kretprobe | Kind::Tracepoint => 3,
    }
}

/// What to change, where it was this limit or the system's.
pub fn hint(error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error()? {
        libc::EMFILE => Some("raise the limit of open files (ulimit -n)"),
        libc::ENFILE => Some("raise the system's limit of open files (fs.file-max)"),
        _ => None,
    }
}
