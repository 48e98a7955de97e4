//! A buffer whose function or pin returned.

use tracer_ebpf::{
    counter::Counter,
    histogram::Histogram,
    operation::Operation,
    policy::Traits,
    record::{BufferRecord, Frame, Walk, flag},
};

use crate::program::{
    by_backing, by_traits, cost, deferred,
    maps::{Counters, observe},
    outcome::ENOMEM,
    process_patterns,
    records::emit,
    session,
    settings::setting,
    verifier::{apart, forgotten},
    walk,
    zero::zero,
};

/// A buffer that failed in an update which tells only how many it did: stands for its errno, which nothing shows.
const UNTOLD: i32 = -5;

/// In place of a buffer's result, while the return of the pin that stands for it was not seen.
pub const NOT_RETURNED: i32 = 1;

/// A buffer whose function returned: into its registration, the maps, and the ring buffer. An accepted one counts as such
/// when its call has `ended` without being refused.
#[inline(always)]
pub fn buffer(frame: &mut Frame, counters: &Counters, ended: bool) {
    count_policy(frame, counters, ended);
    if frame.buffer.ret < 0 && never_pinned(&frame.buffer) {
        nothing_touched(frame);
    } else {
        touched(frame, counters, ended);
    }
    if session::in_detail() {
        if setting!(session.processes) != 0 {
            of_process(frame);
        }
        if setting!(session.records) != 0 {
            emit(&raw const frame.buffer, Counter::LostBufferRecords);
        }
    }
}

/// Counts a buffer whose walk and result are known. An accepted one is judged when its call has `ended`.
#[inline(always)]
fn count_policy(frame: &mut Frame, counters: &Counters, ended: bool) {
    if setting!(kernel.walks) == 0 {
        return;
    }
    let buffer = &frame.buffer;
    let traits = match buffer.walk {
        walk if walk == Walk::Complete as u8 => buffer.traits,
        // GUP stops at it.
        walk if walk == Walk::Hole as u8 => buffer.traits.with(Traits::UNPINNABLE),
        _ => return,
    };
    let length = Traits::of_length(buffer.length);
    // Refused before its pin, and not for the one length that rules differ in: its address, or a length that none takes.
    if setting!(kernel.pin_is_buffer) == 0 && buffer.ret < 0 && buffer.flags & flag::PINNED == 0 && length.0 == 0 {
        return;
    }
    let traits = traits.with(length);
    if buffer.ret < 0 {
        by_traits::judged(&mut frame.buffer, traits.0);
    } else if !ended {
        deferred::judged(frame, traits);
    } else if frame.registration.ret < 0 {
        counters.add(Counter::RolledBackBuffers, 1);
    } else if traits.0 != 0 {
        by_traits::judged(&mut frame.buffer, traits.0);
    } else {
        counters.add(Counter::CleanBuffers, 1);
    }
}

/// What a buffer adds to its registration and to the backings.
#[inline(always)]
fn touched(frame: &mut Frame, counters: &Counters, ended: bool) {
    // What was not walked to its end may have huge pages behind it.
    let short = frame.buffer.walk == Walk::Busy as u8 || frame.buffer.walk == Walk::Cut as u8;
    if setting!(kernel.pin_is_slow) != 0 && short {
        frame.buffer.flags |= flag::FAULTS_UNTOLD;
    }
    let buffer = &frame.buffer;
    if buffer.vmas != 0 {
        let vmas = u64::from(buffer.vmas);
        frame.counts.vmas += vmas;
        // Buffers of one call often lie side by side, many of them in one VMA: then there is nothing new.
        if setting!(kernel.walks) != 0 && (frame.walker.address != frame.last_vma_end || vmas != 1) {
            distinct(frame, vmas as u32);
        }
        frame.last_vma_end = frame.walker.address;
    }
    let buffer = &frame.buffer;
    let registration = &mut frame.registration;
    registration.flags |= buffer.flags & (flag::BACKINGS_CAPPED | flag::PARTS_MISSED | flag::FAULTS_UNTOLD);
    if setting!(kernel.pin_is_slow) != 0 && buffer.flags & flag::FAULTS_UNTOLD != 0 {
        counters.add(Counter::UntoldFaults, 1);
    }
    if buffer.ret < 0 {
        registration.failed_buffers += 1;
    } else {
        frame.counts.bytes += buffer.length;
    }
    if buffer.walk != Walk::Complete as u8 {
        // An empty slot has no VMAs to be known, nor has what the kernel refuses as no range.
        if walk::has_range(buffer.address, buffer.length) {
            registration.flags |= flag::VMAS_PARTIAL;
            frame.counts.partial[usize::from(buffer.walk & 7)] += 1;
        }
    } else if buffer.vmas == 1 {
        frame.counts.single_vma += 1;
    } else {
        frame.counts.several_vmas += 1;
        observe(Histogram::VmasPerBuffer, u64::from(buffer.vmas));
    }
    if buffer.vm_files > 1 {
        frame.counts.multi_vm_file += 1;
        frame.counts.multi_file += u32::from(buffer.files > 1);
    }
    if buffer.flags & (flag::FILES_CAPPED | flag::VM_FILES_CAPPED | flag::BACKINGS_CAPPED) != 0 {
        frame.counts.short += 1;
    }
    backings(frame, counters, ended);
}

apart! {
/// Adds the VMAs of the frame's walk that the call's walks before it did not see. A walk sees all VMAs from its first to its
/// last, so that what they saw together is told by its ends as long as each begins or ends where others did; where one
/// comes back in between otherwise, how many it saw anew is not known.
fn distinct([frame: Frame], vmas: u32) {
    let (first, last) = (frame.walker.first_end, frame.walker.address);
    let mut new = u64::from(vmas);
    if frame.seen_to == 0 {
        frame.seen_from = first;
        frame.seen_to = last;
        frame.seen_with_gaps = 0;
    } else if first > frame.seen_to || last < frame.seen_from {
        frame.seen_with_gaps = 1;
    } else if frame.registration.flags & flag::VMAS_REPEATED != 0 {
        // It is an upper bound already.
    } else if first == frame.seen_to || last == frame.seen_from {
        new -= 1;
    } else if frame.seen_with_gaps == 0 && first >= frame.seen_from && last <= frame.seen_to {
        new = 0;
    } else if first <= frame.seen_from && last >= frame.seen_to {
        new = new.wrapping_sub(frame.registration.vmas);
        frame.seen_with_gaps = 0;
    } else {
        frame.registration.flags |= flag::VMAS_REPEATED;
    }
    frame.registration.vmas += new;
    if first < frame.seen_from {
        frame.seen_from = first;
    }
    if last > frame.seen_to {
        frame.seen_to = last;
    }
}
}

/// Whether a buffer was refused before its pin: for its size or its address. Where the pin stands for its buffer, no such
/// buffer is seen.
#[inline(always)]
fn never_pinned(buffer: &BufferRecord) -> bool {
    setting!(kernel.pin_is_buffer) == 0
        && setting!(kernel.pins) != 0
        && setting!(kernel.walks) != 0
        && buffer.flags & (flag::PINNED | flag::PARTS_MISSED) == 0
}

apart! {
/// Takes back what was walked for a buffer that the kernel refused without a look at its memory: it touched no VMA. The
/// call is in no distribution of VMAs, and nothing of it is unknown.
fn nothing_touched([frame: Frame]) {
    let registration = &mut frame.registration;
    registration.failed_buffers += 1;
    registration.flags |= flag::VMAS_PARTIAL;
    registration.vm_files = frame.files_before as u32;
    registration.files = (frame.files_before >> 32) as u8;
    let buffer = &mut frame.buffer;
    buffer.walk = Walk::None as u8;
    zero!(buffer.vmas, buffer.vm_files, buffer.files, buffer.traits.0, buffer.backings[0].vmas);
}
}

apart! {
/// What a session keeps of a buffer for its process.
fn of_process([frame: Frame]) {
    process_patterns::buffer(frame);
    cost::buffer(frame);
}
}

/// A call's last pin, whose buffer's result is its own where it failed. What comes after the call's last pin may be
/// another buffer, refused before its own (a length of 0) or none at all (an emptied slot): its errno is no evidence.
#[inline(always)]
pub fn settle_last_buffer(frame: &mut Frame, operation: Operation, counters: &Counters) {
    if frame.counts.deferred == 0 {
        return;
    }
    let registration = &frame.registration;
    let short = operation as u8 == Operation::Update as u8
        && registration.ret >= 0
        && (registration.ret as u32) < registration.buffers;
    frame.buffer.ret = if frame.buffer.ret == NOT_RETURNED {
        frame.buffer.flags |= flag::PARTS_MISSED;
        // The call's result has to do.
        if short { UNTOLD } else { registration.ret.min(0) as i32 }
    } else if frame.buffer.ret != 0 {
        frame.buffer.ret
    } else if short || registration.ret == ENOMEM.into() {
        ENOMEM
    } else {
        0
    };
    // Read back, so that the verifier knows as little of the result as we do, and checks the rest once.
    frame.buffer.ret = forgotten(&frame.buffer.ret);
    settle_deferred_buffer(frame, counters, true);
}

/// A buffer that is known by its pin alone, once its result is: a negative errno, or 0.
#[inline(always)]
pub fn settle_deferred_buffer(frame: &mut Frame, counters: &Counters, ended: bool) {
    frame.counts.deferred = 0;
    buffer(frame, counters, ended);
}

#[inline(always)]
fn backings(frame: &mut Frame, counters: &Counters, ended: bool) {
    if setting!(kernel.walks) == 0 || frame.buffer.backings[0].vmas == 0 {
        return;
    }
    if !ended && frame.buffer.ret == 0 {
        return deferred::backings(frame);
    }
    let failed = frame.buffer.ret < 0 || frame.registration.ret < 0;
    by_backing::backing(&mut frame.buffer.backings[0], failed, counters);
    // Most buffers have one.
    if frame.buffer.backings[1].vmas != 0 {
        by_backing::other_backings(&mut frame.buffer, u32::from(failed));
    }
}
