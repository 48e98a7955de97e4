//! What became of a call, as its frame tells.

use tracer_ebpf::{
    operation::Operation,
    record::{Frame, RegistrationRecord, flag},
};

use crate::program::settings::setting;

/// The only errors possible after pinning: no memory for the table, or `RLIMIT_MEMLOCK` exceeded. `ENOMEM` of
/// `include/uapi/asm-generic/errno-base.h`.
pub const ENOMEM: i32 = -12;

/// Whether an update did fewer buffers than it was asked for, and some: the kernel tells of no errno then.
#[inline(always)]
pub fn is_short(registration: &RegistrationRecord) -> bool {
    let told = registration.requested != u32::MAX;
    told && registration.ret >= 0 && registration.ret < i64::from(registration.requested)
}

/// Whether a call that succeeded put a buffer into a table: not one that made empty slots, or emptied them.
#[inline(always)]
pub fn installs(frame: &Frame) -> bool {
    let registration = &frame.registration;
    let told = setting!(kernel.buffers) != 0 && registration.flags & flag::PARTS_MISSED == 0 && saw_all(frame);
    registration.operation == Operation::Clone as u8 || !told || accepted(frame) != 0
}

/// Bytes of the buffers that a call which succeeded put into the table. A register puts all of them there; an update stops
/// at the first that is refused.
#[inline(always)]
pub fn accepted(frame: &Frame) -> u64 {
    let registration = &frame.registration;
    if registration.operation != Operation::Update as u8 {
        return registration.bytes;
    }
    let last =
        frame.counts.deferred != 0 && frame.buffer.ret == 0 && registration.ret >= i64::from(registration.buffers);
    frame.counts.bytes + if last { frame.buffer.length } else { 0 }
}

/// Whether entry and return of each buffer and each pin were seen.
#[inline(always)]
pub fn saw_all(frame: &Frame) -> bool {
    frame.counts.buffer_returns == frame.registration.buffers && frame.counts.pin_returns == frame.counts.pins
}
