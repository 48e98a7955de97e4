//! The system call around a registration: its own time, and that it is under way.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::{bpf_get_current_task, bpf_ktime_get_ns},
    programs::RawTracePointContext,
};
use tracer_ebpf::{
    counter::Counter,
    operation::Operation,
    record::{Frame, flag},
    under_way::{self, Call, SLOTS, TRIES, WORDS, Word, verdict},
};

use crate::program::{
    kernel,
    maps::{CALLS, Counters, count},
    settings::setting,
};

/// A word of the map's value.
#[inline(always)]
fn word(base: *mut u64, place: usize, word: Word) -> *mut u64 {
    // The position is known to be inside only by this mask.
    base.wrapping_add((place * WORDS + word as usize) & (SLOTS - 1))
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

#[inline(always)]
fn places() -> Option<*mut u64> {
    CALLS.get_ptr_mut(0).map(<*mut [u64; SLOTS]>::cast)
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: takes nothing, cannot fail.
    unsafe { bpf_ktime_get_ns() }
}

/// The time where calls are timed, else 0.
#[inline(always)]
pub fn clock() -> u64 {
    if setting!(kernel.calls) != 0 { now() } else { 0 }
}

/// Notes that a call is under way; gives since when. The clock is read after the work.
#[inline(always)]
pub fn begin(frame: &mut Frame, operation: Operation) -> u64 {
    // Of a call whose end was not seen.
    end(frame);
    let place = take(frame);
    let now = now();
    frame.call = Call::new(operation, now).0;
    if let Some(place) = place {
        set(place, frame.call);
    }
    now
}

/// A place for the task's call: the one that it had before, if nobody has come there since.
#[inline(always)]
fn take(frame: &mut Frame) -> Option<*mut u64> {
    let base = places()?;
    // SAFETY: takes nothing, cannot fail.
    let task = unsafe { bpf_get_current_task() };
    let last = frame.last_place as usize;
    if last != 0 && get(word(base, last - 1, Word::Task)) == task {
        frame.place = last as u32;
        return Some(word(base, last - 1, Word::Call));
    }
    let first = kernel::thread() as usize;
    for attempt in 0..TRIES {
        let place = first.wrapping_add(attempt) & (under_way::CALLS - 1);
        let call = word(base, place, Word::Call);
        let own = word(base, place, Word::Task);
        // A thread makes one call at a time: its own is left over.
        if get(call) == 0 || get(own) == task {
            set(own, task);
            frame.place = place as u32 + 1;
            frame.last_place = frame.place;
            return Some(call);
        }
    }
    count(Counter::LostCalls);
    None
}

/// The call ended: gives back its place, if that is still its own.
#[inline(always)]
pub fn end(frame: &mut Frame) {
    if frame.place == 0 {
        return;
    }
    if let Some(base) = places() {
        let call = word(base, frame.place as usize - 1, Word::Call);
        if get(call) == frame.call {
            set(call, 0);
        }
    }
    frame.place = 0;
}

/// Whether the entry of the system call that is under way was seen. One whose end was not seen may have left its own.
#[inline(always)]
pub fn entered(frame: &Frame, operation: Operation) -> bool {
    setting!(kernel.calls) != 0 && frame.call_ns != 0 && Call(frame.call).operation() == operation as u8
}

/// The function was `entered` by a call whose own entry was seen.
#[inline(always)]
pub fn waited(frame: &mut Frame, entered: u64) {
    frame.registration.wait_ns = entered.wrapping_sub(frame.call_ns);
    frame.registration.flags |= flag::CALL_TIMED;
    frame.call_ns = 0;
}

/// The parts of a call whose function was seen; `frame.left_ns` is when what is behind the function began, and `now` when it
/// ended.
#[inline(always)]
pub fn ended(frame: &mut Frame, counters: &Counters, operation: Operation, now: u64) {
    if setting!(kernel.calls) == 0 {
        return;
    }
    let registration = &mut frame.registration;
    if registration.flags & flag::CALL_TIMED == 0 {
        return counters.add(Counter::UntimedCalls, 1);
    }
    let after_ns = now.wrapping_sub(frame.left_ns);
    registration.call_ns = registration.wait_ns + registration.duration_ns + after_ns;
    counters.add_of(Counter::TimedCalls, operation, 1);
    counters.add_of(Counter::CallWaitNs, operation, registration.wait_ns);
    counters.add_of(Counter::CallFunctionNs, operation, registration.duration_ns);
    counters.add_of(Counter::CallAfterNs, operation, after_ns);
}

/// Whether the call in a place (the first argument) is under way still, by its task (the second) since then (the third), and
/// writes who that is. The fourth is where a task's registers lie; without a call the program says that. For
/// `BPF_PROG_TEST_RUN`, attached nowhere. The library's macro for such programs would drop what it says.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp")]
pub extern "C" fn under_way(context: *mut c_void) -> u32 {
    let context = RawTracePointContext::new(context);
    let (place, task, call): (u64, u64, u64) = (context.arg(0), context.arg(1), context.arg(2));
    if call == 0 {
        return kernel::registers();
    }
    let Some(base) = places() else { return verdict::UNTOLD };
    let place = place as usize;
    let (pid, tid) = kernel::numbers_of(task);
    set(word(base, place, Word::Numbers), u64::from(pid) << 32 | u64::from(tid));
    let [low, high] = kernel::comm_of(task);
    set(word(base, place, Word::Comm), low);
    set(base.wrapping_add((place * WORDS + Word::Comm as usize + 1) & (SLOTS - 1)), high);
    kernel::in_system_call(task, Call(call), context.arg(3))
}
