//! Entry and return of the function that pins a buffer's pages. Counted only inside a buffer's function: both have
//! other callers.
//!
//! ```c
//! struct page **io_pin_pages(unsigned long ubuf, unsigned long len, int *npages);
//! long pin_user_pages(unsigned long start, unsigned long nr_pages, unsigned int gup_flags,
//!                     struct page **pages, struct vm_area_struct **vmas);      // to 6.4
//! ```

use aya_ebpf::{bindings::task_struct, helpers::bpf_ktime_get_ns};
use tracer_ebpf::{
    counter::Counter,
    record::{Frame, Stage, flag},
};

use super::{Arguments, buffer, entry, exit, phase};
use crate::program::{
    fold, frame,
    kernel::{self, Iovec},
    maps::{Counters, count},
    session,
    settings::setting,
    walk,
};

entry!(pin_enter_kprobe, pin_enter_fentry, |_context| enter());
// In the stead of the per-buffer function's hook, where a session wants no more of a buffer than the pin tells.
entry!(pin_enter_buffer_kprobe, pin_enter_buffer_fentry, |context| enter_as_buffer(
    context.argument(0),
    context.argument(1)
));
exit!(pin_exit_kretprobe, pin_exit_fexit, || leave(0, |_| ()));
exit!(pin_exit_buffer_kretprobe, pin_exit_buffer_fexit, 3, |ret| leave(buffer::error_of_pointer(ret), walk::again));

#[inline(always)]
fn enter() {
    let task = kernel::task();
    let Some(frame) = frame::of(task) else { return };
    if frame.stage == Stage::Buffer as u32 {
        begin(frame, task);
    }
}

#[inline(always)]
fn begin(frame: &mut Frame, task: *mut task_struct) {
    frame.stage = Stage::Pin as u32;
    frame.counts.pins += 1;
    (frame.minor_faults, frame.major_faults) = kernel::faults(task);
    phase::pin_begins(frame);
    // SAFETY: takes nothing, cannot fail.
    frame.pin_ns = unsafe { bpf_ktime_get_ns() };
}

#[inline(always)]
fn enter_as_buffer(base: u64, length: u64) {
    let task = kernel::task();
    let Some(frame) = frame::of(task) else { return };
    if frame.stage != Stage::Registration as u32 && frame.stage != Stage::Pin as u32 {
        return;
    }
    // SAFETY: takes nothing, cannot fail.
    let entered = unsafe { bpf_ktime_get_ns() };
    // The kernel stops at the first buffer that it refuses: the one before was accepted.
    if frame.counts.deferred != 0
        && let Some(counters) = Counters::get()
    {
        if frame.buffer.ret == fold::NOT_RETURNED {
            frame.buffer.flags |= flag::PARTS_MISSED;
        }
        frame.buffer.ret = 0;
        fold::settle_deferred_buffer(frame, &counters, false);
    }
    buffer::begin(frame, Iovec { base, length }, 0);
    frame.counts.deferred = 1;
    frame.buffer.ret = fold::NOT_RETURNED;
    if walk::has_range(base, length) {
        walk::walk(frame, task, base, base.wrapping_add(length));
    }
    begin(frame, task);
    let walk_ns = frame.pin_ns - entered;
    frame.registration.walk_ns += walk_ns;
    if session::in_detail() {
        frame.buffer.walk_ns = walk_ns;
    }
}

/// `ret` is 0 or a negative errno, where the pin stands for its buffer.
#[inline(always)]
fn leave(ret: i32, walk_again: impl Fn(&mut Frame)) {
    // SAFETY: takes nothing, cannot fail.
    let now = unsafe { bpf_ktime_get_ns() };
    let task = kernel::task();
    let Some(frame) = frame::of(task) else { return };
    if frame.stage != Stage::Pin as u32 {
        return without_entry(frame);
    }
    frame.counts.pin_returns += 1;
    let (minor, major) = kernel::faults(task);
    let pin_ns = now - frame.pin_ns;
    let (minor, major) = (minor.wrapping_sub(frame.minor_faults), major.wrapping_sub(frame.major_faults));
    phase::pin_ends(frame, pin_ns);
    let registration = &mut frame.registration;
    registration.flags |= flag::PINNED;
    registration.pin_ns += pin_ns;
    registration.minor_faults += minor;
    registration.major_faults += major;
    if session::in_detail() || setting!(kernel.pin_is_buffer) == 0 {
        frame.buffer.flags |= flag::PINNED;
    }
    if session::in_detail() {
        let buffer = &mut frame.buffer;
        buffer.pin_ns += pin_ns;
        buffer.minor_faults += minor;
        buffer.major_faults += major;
    }
    if setting!(kernel.pin_is_buffer) != 0 {
        frame.stage = Stage::Registration as u32;
        frame.counts.buffer_returns += 1;
        frame.buffer.ret = ret;
        walk_again(frame);
    } else {
        frame.stage = Stage::Buffer as u32;
    }
}

/// A return of which no entry was seen: on a trampoline, a program that was preempted is skipped for whoever comes
/// next on that CPU.
#[inline(always)]
fn without_entry(frame: &mut Frame) {
    if setting!(kernel.pin_is_buffer) != 0 {
        buffer::without_entry(frame);
    } else if frame.stage == Stage::Buffer as u32 {
        frame.buffer.flags |= flag::PARTS_MISSED;
        count(Counter::PinMissedEntries);
    }
}
