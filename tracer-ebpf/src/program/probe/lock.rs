//! Waiting for `mmap_lock` inside a registration. The tracepoints fire at every acquisition on the machine, so sessions
//! ask for them and the daemon does not.
//!
//! ```c
//! TP_PROTO(struct mm_struct *mm, [const char *memcg_path,] bool write)                 // mmap_lock_start_locking
//! TP_PROTO(struct mm_struct *mm, [const char *memcg_path,] bool write, bool success)   // mmap_lock_acquire_returned
//! ```
//!
//! The path was there up to 6.12. A trylock fires the second tracepoint alone: an acquisition
//! without a wait.

use aya_ebpf::{EbpfContext, helpers::bpf_ktime_get_ns, macros::raw_tracepoint, programs::RawTracePointContext};
use tracer_ebpf::{
    detail::{Detail, WAITED_NS},
    operation::Operation,
    record::{Frame, Stage, Times},
};

use crate::program::{frame, kernel, maps::Details, settings::setting, zero::zero};

#[raw_tracepoint]
pub fn lock_wanted(context: RawTracePointContext) -> i32 {
    if let Some(frame) = watched(&context) {
        if frame.times.lock_ns != 0
            && let Some(details) = Details::get()
        {
            details.add(Detail::LockUnpaired, 1);
        }
        // SAFETY: takes nothing, cannot fail.
        frame.times.lock_ns = unsafe { bpf_ktime_get_ns() };
    }
    0
}

#[raw_tracepoint]
pub fn lock_returned(context: RawTracePointContext) -> i32 {
    // SAFETY: takes nothing, cannot fail.
    let now = unsafe { bpf_ktime_get_ns() };
    if let Some(frame) = watched(&context) {
        let position = u32::from(setting!(kernel.lock_write));
        returned(frame, now, flag(&context, position), flag(&context, position + 1));
    }
    0
}

/// The frame of the registration that this acquisition belongs to: the task's own memory's lock, taken by the kernel.
#[inline(always)]
fn watched(context: &RawTracePointContext) -> Option<&'static mut Frame> {
    let task = kernel::task();
    let frame = frame::of(task)?;
    let inside = is_inside(frame) && is_counted(frame) && frame.walking == 0;
    (inside && context.arg::<u64>(0) == kernel::mm(task)).then_some(frame)
}

/// Whether the function of the registration is at work.
#[inline(always)]
pub fn is_inside(frame: &Frame) -> bool {
    frame.stage != Stage::Idle as u32 && frame.stage != Stage::Returned as u32
}

/// Whether the registration is one that pins.
#[inline(always)]
pub fn is_counted(frame: &Frame) -> bool {
    let operation = frame.registration.operation;
    operation == Operation::Register as u8 || operation == Operation::Update as u8
}

/// A `bool` among the arguments. Read by a helper: the position is not a constant to the compiler, and the verifier
/// takes no computed offset.
#[inline(always)]
fn flag(context: &RawTracePointContext, position: u32) -> bool {
    kernel::read::<u64>(context.as_ptr() as u64, position * size_of::<u64>() as u32).unwrap_or(0) & 0xff != 0
}

#[inline(always)]
fn returned(frame: &mut Frame, now: u64, write: bool, success: bool) {
    let Some(details) = Details::get() else { return };
    let since = frame.times.lock_ns;
    // A wait fails by a fatal signal alone. What fails without one was tried only: by the walk of another session, where the
    // end of the task's own wait was skipped.
    if !success && (since == 0 || !kernel::is_killed(kernel::task())) {
        return details.add(Detail::LockFailedTrylocks, 1);
    }
    if since != 0 {
        frame.times.lock_ns = 0;
        let waited = now - since;
        frame.registration.lock_wait_ns += waited;
        details.wait(write, waited);
        if !success {
            return details.add(Detail::LockKilledWaits, 1);
        }
    }
    if write {
        frame.registration.lock_writes += 1;
        details.add(Detail::LockWrites, 1);
    } else {
        frame.registration.lock_reads += 1;
        details.add(Detail::LockReads, 1);
    }
}

/// At a registration's entry.
#[inline(always)]
pub fn clear(times: &mut Times) {
    zero!(times.lock_ns);
}

/// A registration that ended.
#[inline(always)]
pub fn end(frame: &Frame) {
    if setting!(session.locks) == 0 || !is_counted(frame) {
        return;
    }
    let Some(details) = Details::get() else { return };
    let registration = &frame.registration;
    details.add(Detail::LockRegistrations, 1);
    details.add(Detail::LockTotalNs, registration.duration_ns);
    if registration.lock_wait_ns != 0 {
        details.add(Detail::LockWaitNs, registration.lock_wait_ns);
    }
    if registration.lock_reads != 0 {
        details.add(Detail::LockReaders, 1);
    }
    if registration.lock_writes != 0 {
        details.add(Detail::LockWriters, 1);
    }
    if registration.lock_wait_ns > WAITED_NS {
        details.add(Detail::LockWaited, 1);
    }
    if frame.times.lock_ns != 0 {
        details.add(Detail::LockUnpaired, 1);
    }
}
