//! A call that ended.

use aya_ebpf::EbpfContext;
use aya_log_ebpf::debug;
use tracer_ebpf::{
    counter::Counter,
    histogram::Histogram,
    operation::Operation,
    policy::Traits,
    record::{Frame, RegistrationRecord, Walk, flag},
};

use super::buffer;
use crate::program::{
    by_backing, calls, cgroup, deferred, length,
    maps::{Counters, Distributions, observe_duration},
    outcome::{accepted, installs, is_short, saw_all},
    process, records, ring as rings, session,
    settings::setting,
    slots, tables,
    verifier::forgotten,
};

/// The most bytes that any kernel takes in one buffer: 1 TiB, since 7.2.
const MOST_BYTES: u64 = 1 << 40;

/// A registration that ended with the frame in hand; `frame.end_ns` is its end, the tracepoint's time where the return
/// was not seen.
#[inline(always)]
pub fn registration(
    context: &impl EbpfContext,
    frame: &mut Frame,
    counters: &Counters,
    operation: Operation,
    ret: i64,
    returned: bool,
    ended: u64,
) {
    let registration = &mut frame.registration;
    registration.ret = ret;
    let walked = registration.walk_ns;
    registration.duration_ns = frame.end_ns.wrapping_sub(registration.header.start_ns).wrapping_sub(walked);
    if operation as u8 == Operation::Update as u8 && is_short(registration) {
        registration.flags |= flag::PARTIAL;
    }
    calls::ended(frame, counters, operation, ended);
    let registration = &mut frame.registration;
    let ret = forgotten(&registration.ret);
    if returned {
        counters.add_of(Counter::Returns, operation, 1);
    } else if setting!(kernel.registration_returns) != 0 {
        registration.flags |= flag::RETURN_MISSED;
        counters.add_of(Counter::MissedReturns, operation, 1);
    }
    if can_finish_fast(frame, ret) {
        finish_fast(frame, counters, operation);
    } else {
        finish_full(frame, counters, operation);
    }
    if operation as u8 == Operation::Unregister as u8 {
        if setting!(session.rings) != 0 && ret >= 0 {
            rings::unregistered(frame.registration.ring);
        }
    } else if !returned {
        settle(frame, operation, ret);
    }
    if session::in_detail() {
        in_detail(frame, operation);
    }
    debug!(context, "{} buffers, {} VMAs, returned {}", frame.registration.buffers, frame.registration.vmas, ret);
}

/// What a register, an update or a clone does to its ring and to what is registered: at its function's return, where the
/// kernel still holds the ring's `uring_lock`, so that calls of several threads come one after the other, and in their
/// order. The tracepoint, which takes the place of a return that was missed, comes after that lock up to 6.12.
#[inline(always)]
pub fn settle(frame: &Frame, operation: Operation, ret: i64) {
    if setting!(session.rings) != 0
        && let Some(counters) = Counters::get()
    {
        rings::ended(frame, operation, ret, &counters);
    }
    if setting!(session.tables) != 0 {
        tables::ended(frame.registration.ring, operation, ret);
    }
}

#[inline(always)]
fn in_detail(frame: &mut Frame, operation: Operation) {
    if setting!(session.processes) != 0 && operation as u8 != Operation::Unregister as u8 {
        process::process(frame, operation as u32);
    }
    if setting!(session.records) != 0 {
        records::name_process(&mut frame.registration);
        records::ring(&mut frame.registration);
        records::emit(&raw const frame.registration, Counter::LostRegistrationRecords);
    }
}

/// The most frequent kind of registration by far, which one counter tells whole: accepted, one buffer in one VMA, walked
/// to its end, pinned once, and nothing missed.
#[inline(always)]
fn can_finish_fast(frame: &Frame, ret: i64) -> bool {
    setting!(kernel.pin_is_buffer) != 0
        && ret >= 0
        && frame.registration.buffers == 1
        && frame.counts.pin_returns == 1
        && frame.buffer.ret == 0
        && frame.registration.flags & !(flag::RING_USED | flag::CALL_TIMED) == flag::PINNED
        && frame.buffer.walk == Walk::Complete as u8
        && frame.buffer.vmas == 1
        && frame.buffer.traits.0 == 0
        && Traits::of_length(frame.registration.bytes).0 == 0
}

/// The same as [`finish_full`] for a registration that [`can_finish_fast`], at two thirds of the cost.
#[inline(always)]
fn finish_fast(frame: &mut Frame, counters: &Counters, operation: Operation) {
    let registration = &mut frame.registration;
    registration.vmas = 1;
    counters.succeeded(operation);
    let bucket = observe_duration(Histogram::DurationOk as u32 + operation as u32, registration.duration_ns);
    frame.bucket = bucket as u64;
    let bucket = forgotten(&frame.bucket) as usize;
    let registration = &mut frame.registration;
    registration.registered = registration.bytes;
    registration.refused = 0;
    if let Some(distributions) = Distributions::get() {
        distributions.observe(Histogram::BytesPerRegistration, registration.bytes);
        distributions.observe(Histogram::Pin, registration.pin_ns);
    }
    by_backing::backing(&mut frame.buffer.backings[0], false, counters);
    let used = registration.flags & flag::RING_USED != 0;
    costs(registration, counters);
    let installation = slots::installation(frame, operation);
    counters.plain(installation, used);
    if setting!(session.workloads) != 0 {
        cgroup::finish_fast(&frame.registration, bucket, installation);
    }
}

#[inline(always)]
fn finish_full(frame: &mut Frame, counters: &Counters, operation: Operation) {
    if setting!(kernel.pin_is_buffer) != 0 {
        buffer::settle_last_buffer(frame, operation, counters);
    }
    length::refused(frame, operation, frame.registration.ret);
    frame.registration.flags |=
        if saw_all(frame) { flag::TIMED } else { flag::TIMED | flag::PARTS_MISSED | flag::VMAS_PARTIAL };
    end(frame, counters, operation);
    deferred::settle(frame, counters);
    bytes(frame, counters);
    distributions(&frame.registration, operation);
    parts(frame, counters);
    if operation as u8 != Operation::Unregister as u8 {
        if frame.registration.ret >= 0 {
            installed(frame, counters, operation);
        }
        if setting!(session.workloads) != 0 {
            cgroup::finish_full(frame, operation);
        }
    }
}

/// What a call that succeeded did to its ring's table.
#[inline(always)]
fn installed(frame: &Frame, counters: &Counters, operation: Operation) {
    let used = frame.registration.flags & flag::RING_USED != 0;
    if installs(frame) {
        counters.installation(slots::installation(frame, operation), used);
    } else if slots::emptied(frame, operation) {
        counters.emptied(used);
    }
}

/// Counts the call's result. An update that stopped at a buffer tells how many it had done before; what stopped it is that
/// buffer's own result, where it came as far as its function.
#[inline(always)]
fn end(frame: &mut Frame, counters: &Counters, operation: Operation) {
    let registration = &mut frame.registration;
    if operation as u8 == Operation::Update as u8 && registration.ret >= 0 && registration.failed_buffers != 0 {
        registration.flags |= flag::PARTIAL;
    }
    let told = registration.failed_buffers != 0 && frame.buffer.flags & flag::PARTS_MISSED == 0;
    if registration.flags & flag::PARTIAL != 0 {
        counters.partial(operation, if told { frame.buffer.ret } else { 0 });
    } else if registration.ret >= 0 {
        counters.succeeded(operation);
    } else {
        counters.failed(operation, registration.ret);
    }
}

/// What of the bytes asked for is registered, and what is not.
#[inline(always)]
fn bytes(frame: &mut Frame, counters: &Counters) {
    frame.registration.registered = if frame.registration.ret < 0 { 0 } else { accepted(frame) };
    let refused = frame.registration.bytes.wrapping_sub(forgotten(&frame.registration.registered));
    // An iovec may ask for 2^64: of a call no more counts than any kernel takes in one.
    frame.registration.refused = if refused < MOST_BYTES { refused } else { MOST_BYTES };
    counters.add(Counter::RefusedBytes, forgotten(&frame.registration.refused));
}

#[inline(always)]
fn distributions(registration: &RegistrationRecord, operation: Operation) {
    let histogram = if registration.flags & flag::PARTIAL != 0 {
        Histogram::DurationPartial as u32
    } else if registration.ret >= 0 {
        Histogram::DurationOk as u32 + operation as u32
    } else {
        Histogram::DurationFailed as u32 + operation as u32
    };
    observe_duration(histogram, registration.duration_ns);
    if registration.buffers == 0 {
        return;
    }
    let Some(distributions) = Distributions::get() else { return };
    if registration.ret >= 0 {
        distributions.observe(Histogram::BytesPerRegistration, registration.registered);
    }
    distributions.observe(Histogram::BuffersPerRegistration, u64::from(registration.buffers));
    if registration.flags & (flag::PINNED | flag::PARTS_MISSED) == flag::PINNED {
        distributions.observe(Histogram::Pin, registration.pin_ns);
    }
    if registration.flags & (flag::VMAS_PARTIAL | flag::VMAS_REPEATED) == 0 {
        distributions.observe(Histogram::VmasPerRegistration, registration.vmas);
    }
}

/// What was gathered over the registration's buffers, added once.
#[inline(always)]
fn parts(frame: &Frame, counters: &Counters) {
    let registration = &frame.registration;
    if registration.buffers == 0 {
        return;
    }
    costs(registration, counters);
    counters.add(Counter::BufferEntries, registration.buffers.into());
    counters.add(Counter::BufferReturns, frame.counts.buffer_returns.into());
    counters.add(Counter::PinEntries, frame.counts.pins.into());
    counters.add(Counter::PinReturns, frame.counts.pin_returns.into());
    if frame.counts.buffer_returns != registration.buffers || frame.counts.pin_returns != frame.counts.pins {
        counters.add(Counter::BufferMissedReturns, (registration.buffers - frame.counts.buffer_returns).into());
        counters.add(Counter::PinMissedReturns, (frame.counts.pins - frame.counts.pin_returns).into());
    }
    counters.add(Counter::SingleVmaBuffers, frame.counts.single_vma.into());
    counters.add(Counter::WalksComplete, (frame.counts.single_vma + frame.counts.several_vmas).into());
    counters.add(Counter::WalkVmas, frame.counts.vmas);
    if registration.flags & flag::VMAS_PARTIAL != 0 {
        counters.add(Counter::WalksNone, frame.counts.partial[Walk::None as usize].into());
        counters.add(Counter::WalksHole, frame.counts.partial[Walk::Hole as usize].into());
        counters.add(Counter::WalksBusy, frame.counts.partial[Walk::Busy as usize].into());
        counters.add(Counter::WalksCut, frame.counts.partial[Walk::Cut as usize].into());
    }
    if registration.flags & flag::VMAS_REPEATED != 0 {
        counters.add(Counter::ShortRecords, 1);
    }
    if frame.counts.multi_vm_file | frame.counts.short != 0 {
        counters.add(Counter::MultiVmFileBuffers, frame.counts.multi_vm_file.into());
        counters.add(Counter::MultiFileBuffers, frame.counts.multi_file.into());
        counters.add(Counter::ShortRecords, frame.counts.short.into());
    }
}

/// What a registration cost besides its time.
#[inline(always)]
fn costs(registration: &RegistrationRecord, counters: &Counters) {
    counters.add(Counter::WalkNanoseconds, registration.walk_ns);
    if registration.minor_faults | registration.major_faults != 0 {
        counters.add(Counter::MinorFaults, registration.minor_faults);
        counters.add(Counter::MajorFaults, registration.major_faults);
    }
    if registration.lookups != 0 {
        counters.add(Counter::Lookups, registration.lookups);
    }
}
