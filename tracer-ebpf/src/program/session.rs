//! Which tasks a session wants.

use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_uid_gid};
use tracer_ebpf::counter::Counter;

use crate::program::{
    kernel,
    maps::{COUNTING, count},
    settings::{self, setting},
};

/// Whether the session keeps more of a buffer than the aggregates: for records, or for what processes do.
#[inline(always)]
pub fn in_detail() -> bool {
    setting!(session.in_detail) != 0
}

/// Whether calls are counted now, and the current task passes the session's filters. What is off costs nothing: the verifier
/// removes it.
#[inline(always)]
pub fn wants_current() -> bool {
    is_counting() && (setting!(session.filtered) == 0 || passes())
}

/// Whether calls are counted now.
#[inline(always)]
pub fn is_counting() -> bool {
    // SAFETY: a value of the map; user space writes it as a whole.
    COUNTING.get_ptr(0).is_some_and(|counting| unsafe { core::ptr::read_volatile(counting) } != 0)
}

#[inline(always)]
fn passes() -> bool {
    if setting!(session.by_pid) != 0 && !is_the_process() {
        return false;
    }
    if setting!(session.by_uid) != 0 && bpf_get_current_uid_gid() as u32 != setting!(session.uid) {
        return false;
    }
    if setting!(session.by_comm) != 0 && !comm_is_wanted() {
        return false;
    }
    setting!(session.by_descent) == 0 || kernel::current_descends() == 1
}

/// Whether it is the process of that number, and none that has the number after it.
#[inline(always)]
fn is_the_process() -> bool {
    kernel::pid_tid().0 == setting!(session.pid) && !kernel::process_began_after(settings::pid_seen())
}

/// Counts a call of a task of which it cannot be told whether it descends from the command: once, at its end.
#[inline(always)]
pub fn count_untold() {
    if setting!(session.by_descent) != 0 && kernel::current_descends() > 1 {
        count(Counter::LostDescendants);
    }
}

#[inline(always)]
fn comm_is_wanted() -> bool {
    let Ok(comm) = bpf_get_current_comm() else { return false };
    let [low, high] = halves(&comm);
    let [wanted_low, wanted_high] = settings::comm();
    low == wanted_low && high == wanted_high
}

#[inline(always)]
fn halves(comm: &[u8; 16]) -> [u64; 2] {
    // SAFETY: 16 bytes, read as two words without asking for their alignment.
    unsafe { core::ptr::read_unaligned(comm.as_ptr().cast()) }
}
