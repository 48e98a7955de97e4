//! The traced command's process tree: `TP_PROTO(struct task_struct *parent, struct task_struct *child)` of
//! `sched:sched_process_fork`.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use tracer_ebpf::counter::Counter;

use crate::{
    kernel,
    maps::{DESCENDANTS, count},
};

#[raw_tracepoint]
pub fn forked(context: RawTracePointContext) -> i32 {
    let parent = kernel::pid_tid().0;
    if DESCENDANTS.get_ptr(parent).is_none() {
        return 0;
    }
    let child = kernel::tgid_of(context.arg(1)).filter(|child| *child != parent);
    if child.is_some_and(|child| DESCENDANTS.insert(child, 1, 0).is_err()) {
        count(Counter::LostDescendants);
    }
    0
}
