//! Entry and return of the function that registers one buffer.
//!
//! ```c
//! int io_sqe_buffer_register(struct io_ring_ctx *, struct iovec *, struct io_mapped_ubuf **,
//!                            struct page **last_hpage);                                        // to 6.12
//! struct io_rsrc_node *io_sqe_buffer_register(struct io_ring_ctx *, struct iovec *, struct page **);  // to 7.0
//! struct io_rsrc_node *io_sqe_buffer_register(struct io_ring_ctx *, struct iovec *);           // since 7.2
//! ```
//!
//! The iovec is in kernel memory, already converted from a 32-bit caller's layout.

use aya_ebpf::{bindings::task_struct, helpers::bpf_ktime_get_ns};
use tracer_ebpf::{
    counter::Counter,
    record::{Frame, Header, KIND_BUFFER, Stage, Walk, flag},
};

use super::{Arguments, entry, exit};
use crate::program::{
    fold, frame,
    kernel::{self, Iovec},
    maps::{Counters, count},
    session,
    settings::setting,
    walk,
    zero::zero,
};

/// `-MAX_ERRNO`, as `IS_ERR()` compares.
const FIRST_ERROR: u64 = -4095_i64 as u64;

entry!(buffer_enter_kprobe, buffer_enter_fentry, |context| enter(context.iovec(1), context.untyped(2), walk::walk));
// Without the walk: a program with its callbacks does not load before 5.17.
entry!(buffer_enter_plain_kprobe, buffer_enter_plain_fentry, |context| enter(
    context.iovec(1),
    context.untyped(2),
    |_, _, _, _| ()
));
exit!(buffer_exit_kretprobe, buffer_exit_fexit, 4, |ret| leave(ret, walk::again));
exit!(buffer_exit_plain_kretprobe, buffer_exit_plain_fexit, 4, |ret| leave(ret, |_| ()));

#[inline(always)]
fn enter(iovec: Iovec, imu_slot: u64, walk: impl Fn(&mut Frame, *mut task_struct, u64, u64)) {
    let task = kernel::task();
    let Some(frame) = frame::of(task) else { return stray() };
    if !is_in_registration(frame) {
        return stray();
    }
    // SAFETY: takes nothing, cannot fail.
    let entered = unsafe { bpf_ktime_get_ns() };
    begin(frame, iovec, imu_slot);
    frame.stage = Stage::Buffer as u32;
    frame.buffer_ns = entered;
    if walk::has_range(iovec.base, iovec.length) {
        walk(frame, task, iovec.base, iovec.base.wrapping_add(iovec.length));
        // SAFETY: takes nothing, cannot fail.
        frame.buffer_ns = unsafe { bpf_ktime_get_ns() };
        frame.buffer.walk_ns = frame.buffer_ns - entered;
        frame.registration.walk_ns += frame.buffer.walk_ns;
    }
}

/// A buffer of a call whose entry was not seen.
#[inline(always)]
fn stray() {
    if session::wants_current() && frame::current().is_none_or(|frame| frame.early == 0) {
        count(Counter::StrayBuffers);
    }
}

/// Whether a registration is under way; a buffer whose return was missed ends here.
#[inline(always)]
fn is_in_registration(frame: &mut Frame) -> bool {
    if frame.stage == Stage::Registration as u32 {
        return true;
    }
    if frame.stage != Stage::Buffer as u32 && frame.stage != Stage::Pin as u32 {
        return false;
    }
    frame.registration.flags |= flag::PARTS_MISSED | flag::VMAS_PARTIAL;
    true
}

#[inline(always)]
pub fn begin(frame: &mut Frame, iovec: Iovec, imu_slot: u64) {
    let registration = &mut frame.registration;
    let buffer = &mut frame.buffer;
    buffer.address = iovec.base;
    buffer.length = iovec.length;
    buffer.walk = Walk::None as u8;
    // The first slice without VMAs ends the backings, whatever else is in it and behind it.
    zero!(buffer.vmas, buffer.vm_files, buffer.files, buffer.flags, buffer.traits.0, buffer.backings[0].vmas);
    if setting!(kernel.pin_is_buffer) == 0 {
        frame.files_before = u64::from(registration.files) << 32 | u64::from(registration.vm_files);
    }
    if session::in_detail() {
        if setting!(session.records) != 0 {
            buffer.header = Header { kind: KIND_BUFFER, ..registration.header };
            buffer.index = registration.buffers;
        }
        zero!(buffer.pin_ns, buffer.minor_faults, buffer.major_faults, buffer.lookups, buffer.walk_ns);
        zero!(buffer.bvecs, buffer.folio_shift);
        frame.imu_slot = imu_slot;
    }
    registration.bytes = registration.bytes.saturating_add(iovec.length);
    registration.buffers += 1;
}

#[inline(always)]
fn leave(ret: u64, walk_again: impl Fn(&mut Frame)) {
    // SAFETY: takes nothing, cannot fail.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(frame) = frame::current() else { return };
    if frame.stage == Stage::Pin as u32 {
        frame.buffer.flags |= flag::PARTS_MISSED;
    } else if frame.stage != Stage::Buffer as u32 {
        return without_entry(frame);
    }
    frame.stage = Stage::Registration as u32;
    frame.counts.buffer_returns += 1;
    walk_again(frame);
    let buffer = &mut frame.buffer;
    buffer.duration_ns = now - frame.buffer_ns;
    buffer.ret = error_of(ret);
    // Pages that are registered were pinned: neither end of the pin was seen.
    if buffer.ret == 0 && buffer.flags & flag::PINNED == 0 && walk::has_range(buffer.address, buffer.length) {
        buffer.flags |= flag::PARTS_MISSED;
        count(Counter::PinMissedEntries);
    }
    if session::in_detail()
        && buffer.ret == 0
        && let Some(imu) = kernel::mapped_ubuf(frame.imu_slot, ret as i64).filter(|imu| *imu != 0)
    {
        (buffer.bvecs, buffer.folio_shift) = kernel::coalescing(imu);
    }
    if let Some(counters) = Counters::get() {
        fold::buffer(frame, &counters, false);
    }
}

/// A buffer that returned and whose entry was not seen: it is in no figure of its registration.
#[inline(always)]
pub fn without_entry(frame: &mut Frame) {
    if frame.stage == Stage::Registration as u32 {
        frame.registration.flags |= flag::PARTS_MISSED | flag::VMAS_PARTIAL;
        count(Counter::BufferMissedEntries);
    }
}

/// 0 or a negative errno, from an int or from what may be an error pointer.
#[inline(always)]
fn error_of(ret: u64) -> i32 {
    if setting!(kernel.buffer_returns_node) == 0 { ret as i32 } else { error_of_pointer(ret) }
}

/// 0 or the negative errno in an error pointer.
#[inline(always)]
pub fn error_of_pointer(ret: u64) -> i32 {
    if ret >= FIRST_ERROR { ret as i32 } else { 0 }
}
