//! What a session keeps of a call for its process.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{bpf_get_current_comm, bpf_get_current_uid_gid},
};
use tracer_ebpf::{
    counter::Counter,
    operation::Operation,
    record::{Frame, ProcessKey, ProcessTotals, flag},
};

use crate::program::{
    cost, kernel,
    maps::{PROCESSES, add_field, count},
    process_patterns,
    verifier::apart,
};

/// Counts a call and its result for its process, whose totals it gives back.
#[inline(always)]
fn process_call(ret: i64, partial: bool) -> Option<*mut ProcessTotals> {
    let process = kernel::process();
    let Some(totals) = PROCESSES.get_ptr_mut(process).or_else(|| new_process(&process)) else {
        count(Counter::LostProcesses);
        return None;
    };
    add_field!(totals.registrations, 1);
    if ret < 0 {
        add_field!(totals.failed, 1);
    } else if partial {
        add_field!(totals.partial, 1);
    }
    Some(totals)
}

/// Counts a call of which no entry was seen for its process.
#[inline(always)]
pub fn unmeasured_call(ret: i64) {
    let Some(totals) = process_call(ret, false) else { return };
    add_field!(totals.unmeasured, 1);
    if ret >= 0 {
        add_field!(totals.missed, 1);
    }
}

apart! {
/// What a session keeps of a call for its process.
pub fn process([frame: Frame], operation: u32) {
    cost::registration(&frame.registration);
    let registration = &frame.registration;
    let Some(totals) = process_call(registration.ret, registration.flags & flag::PARTIAL != 0) else { return 0 };
    add_field!(totals.buffers, registration.buffers.into());
    add_field!(totals.bytes, registration.registered);
    add_field!(totals.refused_bytes, registration.refused);
    add_field!(totals.vmas, registration.vmas);
    add_field!(totals.duration_ns, registration.duration_ns);
    add_field!(totals.pin_ns, registration.pin_ns);
    process_patterns::end(frame, operation == Operation::Register as u32, totals);
}
}

#[inline(always)]
#[expect(clippy::needless_borrows_for_generic_args, reason = "by value it would lie on the stack")]
fn new_process(process: &ProcessKey) -> Option<*mut ProcessTotals> {
    // Its own copy in the read-only data: it is large for a program's stack.
    static BLANK: ProcessTotals = ProcessTotals::ZERO;
    let _ = PROCESSES.insert(process, &BLANK, BPF_NOEXIST.into());
    let totals = PROCESSES.get_ptr_mut(process)?;
    // SAFETY: a value of the map, of plain integers; another thread of the process writes the same.
    let known = unsafe { &mut *totals };
    known.cgroup = kernel::cgroup_id();
    known.uid = bpf_get_current_uid_gid() as u32;
    known.comm = bpf_get_current_comm().unwrap_or_default();
    Some(totals)
}
