//! What a process's buffers are like: gathered over a call, and added to the process once it ends.

use tracer_ebpf::record::{Frame, Habits, LARGE, LONG_LIST, MANY_VMAS, ProcessTotals, RECENT, Walk, flag};

use crate::program::{
    maps::{RINGS, add},
    outcome::ENOMEM,
};

/// Odd, with its bits spread: 2^64 divided by the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Nothing seen yet of this call.
#[inline(always)]
pub fn begin(frame: &mut Frame) {
    let words = (&raw mut frame.habits).cast::<u64>();
    for word in 0..Habits::WORDS {
        // SAFETY: the struct has as many words.
        unsafe { words.add(word).write_volatile(0) };
    }
    (frame.last_end, frame.ranges) = (0, 0);
}

/// A buffer that returned.
#[inline(always)]
pub fn buffer(frame: &mut Frame) {
    let (buffer, habits) = (&frame.buffer, &mut frame.habits);
    if buffer.length == 0 {
        return;
    }
    frame.ranges = (frame.ranges ^ buffer.address).wrapping_mul(SPREAD);
    frame.ranges = (frame.ranges ^ buffer.length).wrapping_mul(SPREAD);
    let adjacent = buffer.address == frame.last_end;
    frame.last_end = buffer.address.wrapping_add(buffer.length);
    if buffer.ret < 0 {
        return;
    }
    if adjacent {
        habits.adjacent_buffers += 1;
        habits.adjacent_bytes += buffer.length;
    }
    if buffer.length >= LARGE && buffer.bvecs != 0 {
        habits.large_buffers += 1;
        habits.large_bytes += buffer.length;
        habits.large_bvecs += u64::from(buffer.bvecs);
    }
    if buffer.flags & (flag::PINNED | flag::PARTS_MISSED) != flag::PINNED {
        return;
    }
    if buffer.flags & flag::FAULTS_UNTOLD != 0 {
        habits.untold_faults += 1;
    }
    if buffer.minor_faults | buffer.major_faults != 0 {
        habits.minor_faults += buffer.minor_faults;
        habits.major_faults += buffer.major_faults;
        habits.faulting_pin_ns += buffer.pin_ns;
        habits.faulting_bytes += buffer.length;
    }
    // A pin that looked none up (the fast path, since 6.10) was no slower for them.
    if buffer.walk == Walk::Complete as u8 && buffer.vmas >= MANY_VMAS && buffer.lookups != 0 {
        habits.many_vma_buffers += 1;
        habits.many_vmas += u64::from(buffer.vmas);
        habits.many_vma_lookups += u64::from(buffer.lookups);
        habits.many_vma_pin_ns += buffer.pin_ns;
    }
}

/// A call that ended, whose process has these totals.
#[inline(always)]
pub fn end(frame: &mut Frame, registers: bool, totals: *mut ProcessTotals) {
    let registration = &frame.registration;
    let habits = &mut frame.habits;
    // After its pin, where the pages are charged: before it, memory itself is short.
    let charged = registration.buffers != 0 && frame.buffer.flags & flag::PINNED != 0;
    if charged && frame.buffer.ret == ENOMEM {
        habits.enomem = 1;
    }
    // What the kernel let go again was not accepted. What its pins cost was paid for.
    if registration.ret < 0 {
        (habits.adjacent_buffers, habits.adjacent_bytes) = (0, 0);
        (habits.large_buffers, habits.large_bytes, habits.large_bvecs) = (0, 0, 0);
    }
    // Of a table of empty slots there is no digest.
    if registration.ret >= 0 && frame.ranges != 0 {
        if registers && registration.buffers >= LONG_LIST {
            habits.long_lists = 1;
        }
        // SAFETY: a value of the map, of plain integers.
        let (recent, elsewhere) = unsafe { (&mut (*totals).recent, &mut (*totals).recent_elsewhere) };
        let here = (frame.ranges ^ ring(registration.ring)).wrapping_mul(SPREAD);
        let (here, anywhere) = (is_known(here, recent), is_known(frame.ranges, elsewhere));
        if here {
            habits.repeated = 1;
            habits.repeated_ns = registration.duration_ns;
        } else if anywhere {
            habits.elsewhere = 1;
            habits.elsewhere_ns = registration.duration_ns;
        }
    }
    // SAFETY: a value of the map; only the address of its field is taken.
    let sums = unsafe { &raw mut (*totals).habits }.cast::<u64>();
    let words = (&raw const frame.habits).cast::<u64>();
    for word in 0..Habits::WORDS {
        // SAFETY: the struct has as many words.
        let value = unsafe { words.add(word).read_volatile() };
        if value != 0 {
            add(sums.wrapping_add(word), value);
        }
    }
}

/// What tells a ring from those that were at its address before it.
#[inline(always)]
fn ring(address: u64) -> u64 {
    // SAFETY: a value of the map, of plain integers.
    let created_ns = RINGS.get_ptr(address).map_or(0, |ring| unsafe { (*ring).created_ns });
    address ^ created_ns
}

/// Whether the process had a call with this digest of late; remembers it. Threads of a process that get here at once may
/// overwrite each other's: then one that comes again is not known.
#[inline(always)]
fn is_known(digest: u64, recent: &mut [u64; RECENT]) -> bool {
    let mut known = false;
    for past in recent.iter() {
        known |= *past == digest;
    }
    if !known {
        for place in (1..RECENT).rev() {
            recent[place] = recent[place - 1];
        }
        recent[0] = digest;
    }
    known
}
