//! The system call around a registration: its own time, and that it is under way.

use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use tracer_ebpf::{
    counter::Counter,
    operation::Operation,
    record::{Frame, flag},
    under_way::{self, SLOTS, TRIES, WORDS, Word},
};

use crate::program::{
    kernel,
    maps::{CALLS, Counters, count, setting},
};

/// A word of the map's value.
#[inline(always)]
fn word(base: *mut u64, place: usize, word: usize) -> *mut u64 {
    // The position is known to be inside only by this mask.
    base.wrapping_add((place * WORDS + word) & (SLOTS - 1))
}

#[inline(always)]
fn get(at: *mut u64) -> u64 {
    // SAFETY: inside the map's value; other CPUs write whole words.
    unsafe { at.read_volatile() }
}

#[inline(always)]
fn set(at: *mut u64, value: u64) {
    // SAFETY: as above.
    unsafe { at.write_volatile(value) };
}

/// Notes that a call is under way since `now`.
#[inline(always)]
pub fn begin(frame: &mut Frame, operation: Operation, now: u64) {
    // Of a call whose end was not seen.
    end(frame);
    let Some(base) = CALLS.get_ptr_mut(0).map(<*mut [u64; SLOTS]>::cast::<u64>) else { return };
    let owner = bpf_get_current_pid_tgid();
    for attempt in 0..TRIES {
        let place = (owner as usize).wrapping_add(attempt) & (under_way::CALLS - 1);
        let others = get(word(base, place, Word::Owner as usize)) != owner;
        // A thread makes one call at a time: one under its own number is left over from a thread that had it before.
        if others && get(word(base, place, Word::Since as usize)) != 0 {
            continue;
        }
        if others || frame.named == 0 {
            name(base, place, owner);
            frame.named = 1;
        }
        set(word(base, place, Word::Operation as usize), operation as u64);
        set(word(base, place, Word::Since as usize), now);
        frame.place = place as u32 + 1;
        frame.since_ns = now;
        return;
    }
    count(Counter::LostCalls);
}

/// Writes who is there: the same task as a rule as the time before.
#[inline(never)]
fn name(base: *mut u64, place: usize, owner: u64) {
    let (pid, tid) = kernel::pid_tid();
    let comm = bpf_get_current_comm().unwrap_or_default();
    // SAFETY: 16 bytes, read as two words without asking for their alignment.
    let [low, high]: [u64; 2] = unsafe { core::ptr::read_unaligned(comm.as_ptr().cast()) };
    set(word(base, place, Word::Owner as usize), owner);
    set(word(base, place, Word::Numbers as usize), u64::from(pid) << 32 | u64::from(tid));
    set(word(base, place, Word::Comm as usize), low);
    set(word(base, place, Word::Comm as usize + 1), high);
}

/// The call ended: gives back its place, if that is still its own.
#[inline(always)]
pub fn end(frame: &mut Frame) {
    if frame.place == 0 {
        return;
    }
    if let Some(base) = CALLS.get_ptr_mut(0).map(<*mut [u64; SLOTS]>::cast::<u64>) {
        let since = word(base, frame.place as usize - 1, Word::Since as usize);
        if get(since) == frame.since_ns {
            set(since, 0);
        }
    }
    frame.place = 0;
}

/// The parts of a call that ended now, whose function was seen.
#[inline(always)]
pub fn ended(frame: &mut Frame, counters: &Counters, operation: Operation) {
    if setting!(kernel.calls) == 0 {
        return;
    }
    if frame.call_ns == 0 {
        return counters.add(Counter::UntimedCalls, 1);
    }
    // SAFETY: takes nothing, cannot fail.
    let now = unsafe { bpf_ktime_get_ns() };
    let registration = &mut frame.registration;
    registration.wait_ns = registration.header.start_ns.wrapping_sub(frame.call_ns);
    let after_ns = now.wrapping_sub(frame.end_ns);
    registration.call_ns = registration.wait_ns + registration.duration_ns + after_ns;
    registration.flags |= flag::CALL_TIMED;
    counters.add_of(Counter::TimedCalls, operation, 1);
    counters.add_of(Counter::CallWaitNs, operation, registration.wait_ns);
    counters.add_of(Counter::CallFunctionNs, operation, registration.duration_ns);
    counters.add_of(Counter::CallAfterNs, operation, after_ns);
}
