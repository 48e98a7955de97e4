//! Who takes hold of user pages: entry and return of the public functions of `mm/gup.c`, for an audit's session only.
//!
//! ```c
//! long pin_user_pages(unsigned long start, unsigned long nr_pages, unsigned int gup_flags, struct page **pages, ...);
//! int  pin_user_pages_fast(unsigned long start, int nr_pages, unsigned int gup_flags, struct page **pages);
//! long pin_user_pages_unlocked(unsigned long start, unsigned long nr_pages, struct page **pages, unsigned int gup_flags);
//! long pin_user_pages_remote(struct mm_struct *mm, unsigned long start, unsigned long nr_pages, unsigned int gup_flags, ...);
//! ```
//!
//! and the same for `get_user_pages`; `_locked` is as the plain one, `_fast_only` as `_fast`. One may call another, and
//! only the outermost counts.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_NOEXIST, task_struct},
    helpers::{bpf_get_current_comm, bpf_get_stackid, bpf_ktime_get_ns},
};
use tracer_ebpf::{
    audit::{AuditCounter, AuditTotals, Gup, RangeCoverage, flag, rules},
    record::{Frame, Stage, Walk},
};

use super::{Arguments as _, exit};
use crate::program::{
    by_backing, frame, kernel,
    maps::{AUDIT, AUDIT_COUNTERS, STACKS, add, own},
    session,
    settings::setting,
    walk,
    zero::zero,
};

/// The programs of one function: with a walk over its VMAs and without one, and the return. `$start` is where its
/// arguments start, pages and flags; `$mm` that of its `mm_struct`. The last number is how many arguments it has before
/// 5.17.
macro_rules! audited {
    ($gup:ident, [$start:literal, $pages:literal, $flags:literal] $(, mm $mm:literal)?; $kprobe:ident, $fentry:ident,
     $plain_kprobe:ident, $plain_fentry:ident, $kretprobe:ident, $fexit:ident, $arguments:literal) => {
        audited!(@entry $gup, [$start, $pages, $flags] $(, $mm)?; $kprobe, $fentry, true);
        audited!(@entry $gup, [$start, $pages, $flags] $(, $mm)?; $plain_kprobe, $plain_fentry, false);
        exit!($kretprobe, $fexit, $arguments, |ret| leave(Gup::$gup as u32, ret));
    };
    (@entry $gup:ident, [$start:literal, $pages:literal, $flags:literal] $(, $mm:literal)?; $kprobe:ident, $fentry:ident,
     $walks:literal) => {
        super::entry!($kprobe, $fentry, |context| enter::<$walks>(
            context.as_ptr(),
            (Gup::$gup as u64) << 32 | context.argument($flags) & 0xffff_ffff,
            context.argument($start),
            context.argument($pages),
            0 $(+ context.argument($mm))?,
        ));
    };
}

audited!(Pin, [0, 1, 2]; audit_pin_enter_kprobe, audit_pin_enter_fentry,
    audit_pin_enter_plain_kprobe, audit_pin_enter_plain_fentry, audit_pin_exit_kretprobe, audit_pin_exit_fexit, 5);
audited!(PinFast, [0, 1, 2]; audit_pin_fast_enter_kprobe, audit_pin_fast_enter_fentry,
    audit_pin_fast_enter_plain_kprobe, audit_pin_fast_enter_plain_fentry,
    audit_pin_fast_exit_kretprobe, audit_pin_fast_exit_fexit, 4);
audited!(PinRemote, [1, 2, 3], mm 0; audit_pin_remote_enter_kprobe, audit_pin_remote_enter_fentry,
    audit_pin_remote_enter_plain_kprobe, audit_pin_remote_enter_plain_fentry,
    audit_pin_remote_exit_kretprobe, audit_pin_remote_exit_fexit, 7);
audited!(PinUnlocked, [0, 1, 3]; audit_pin_unlocked_enter_kprobe, audit_pin_unlocked_enter_fentry,
    audit_pin_unlocked_enter_plain_kprobe, audit_pin_unlocked_enter_plain_fentry,
    audit_pin_unlocked_exit_kretprobe, audit_pin_unlocked_exit_fexit, 4);
audited!(PinLocked, [0, 1, 2]; audit_pin_locked_enter_kprobe, audit_pin_locked_enter_fentry,
    audit_pin_locked_enter_plain_kprobe, audit_pin_locked_enter_plain_fentry,
    audit_pin_locked_exit_kretprobe, audit_pin_locked_exit_fexit, 5);
audited!(PinFastOnly, [0, 1, 2]; audit_pin_fast_only_enter_kprobe, audit_pin_fast_only_enter_fentry,
    audit_pin_fast_only_enter_plain_kprobe, audit_pin_fast_only_enter_plain_fentry,
    audit_pin_fast_only_exit_kretprobe, audit_pin_fast_only_exit_fexit, 4);
audited!(Get, [0, 1, 2]; audit_get_enter_kprobe, audit_get_enter_fentry,
    audit_get_enter_plain_kprobe, audit_get_enter_plain_fentry, audit_get_exit_kretprobe, audit_get_exit_fexit, 5);
audited!(GetFast, [0, 1, 2]; audit_get_fast_enter_kprobe, audit_get_fast_enter_fentry,
    audit_get_fast_enter_plain_kprobe, audit_get_fast_enter_plain_fentry,
    audit_get_fast_exit_kretprobe, audit_get_fast_exit_fexit, 4);
audited!(GetRemote, [1, 2, 3], mm 0; audit_get_remote_enter_kprobe, audit_get_remote_enter_fentry,
    audit_get_remote_enter_plain_kprobe, audit_get_remote_enter_plain_fentry,
    audit_get_remote_exit_kretprobe, audit_get_remote_exit_fexit, 7);
audited!(GetUnlocked, [0, 1, 3]; audit_get_unlocked_enter_kprobe, audit_get_unlocked_enter_fentry,
    audit_get_unlocked_enter_plain_kprobe, audit_get_unlocked_enter_plain_fentry,
    audit_get_unlocked_exit_kretprobe, audit_get_unlocked_exit_fexit, 4);
audited!(GetLocked, [0, 1, 2]; audit_get_locked_enter_kprobe, audit_get_locked_enter_fentry,
    audit_get_locked_enter_plain_kprobe, audit_get_locked_enter_plain_fentry,
    audit_get_locked_exit_kretprobe, audit_get_locked_exit_fexit, 5);
audited!(GetFastOnly, [0, 1, 2]; audit_get_fast_only_enter_kprobe, audit_get_fast_only_enter_fentry,
    audit_get_fast_only_enter_plain_kprobe, audit_get_fast_only_enter_plain_fentry,
    audit_get_fast_only_exit_kretprobe, audit_get_fast_only_exit_fexit, 4);

/// `FOLL_WRITE`: the same on every kernel.
const FOLL_WRITE: u32 = 1;

/// What `bpf_get_stackid` answers where a place is another stack's.
const EEXIST: i64 = -17;

/// Of its flags: the number of functions to leave out, from the innermost.
const SKIP_ONE: u64 = 1;

/// One function for all programs: each has it once, and the object has it once. `what` is the function's number and
/// the flags, since a function takes five arguments at most.
#[inline(never)]
fn enter<const WALKS: bool>(context: *mut c_void, what: u64, start: u64, pages: u64, mm: u64) {
    let function = (what >> 32) as u8;
    let flags = told_apart(what as u32);
    if !session::wants_current() {
        return;
    }
    // SAFETY: takes nothing, cannot fail.
    let entered = unsafe { bpf_ktime_get_ns() };
    let Some(frame) = frame::open() else { return count(AuditCounter::LostFrames) };
    let (first, asked) = (start >> setting!(kernel.page_shift) << setting!(kernel.page_shift), u64::from(pages as u32));
    if frame.stage == Stage::Pin as u32 {
        if is_inner(frame, function, first) {
            return;
        }
        if !is_read_only(frame.audit.key.function, frame.audit.key.flags) {
            count(AuditCounter::MissedReturns);
        }
    }
    // Also of one that is not listed, so that its slow path is known for a part of it.
    frame.stage = Stage::Pin as u32;
    frame.audit.first = first;
    frame.audit.asked = asked;
    frame.audit.key.function = function;
    frame.audit.key.flags = flags;
    if is_read_only(function, flags) {
        return count(AuditCounter::ReadOnly);
    }
    count(AuditCounter::Entries);
    frame.audit.key.comm = bpf_get_current_comm().unwrap_or_default();
    look::<WALKS>(frame, mm);
    frame.audit.key.stack = stack(context);
    // SAFETY: takes nothing, cannot fail.
    frame.audit.start_ns = unsafe { bpf_ktime_get_ns() };
    frame.audit.own_ns = frame.audit.start_ns - entered;
}

/// The place of the present stack; -1 where there is none for it. A map of stacks is a hash without chains: where the
/// place is another stack's, the stack without its innermost function, which is known anyway, has another one.
#[inline(always)]
fn stack(context: *mut c_void) -> i32 {
    let map = || (&raw const STACKS).cast_mut().cast();
    // SAFETY: the context is this program's, the map one of stacks.
    let mut place = unsafe { bpf_get_stackid(context, map(), 0) };
    if place == EEXIST {
        // SAFETY: as above.
        place = unsafe { bpf_get_stackid(context, map(), SKIP_ONE) };
    }
    if place < 0 {
        count(AuditCounter::LostStacks);
        return -1;
    }
    place as i32
}

/// The flags of ours that stand for the kernel's.
#[inline(always)]
fn told_apart(gup_flags: u32) -> u8 {
    let mut flags = 0;
    if gup_flags & FOLL_WRITE != 0 {
        flags |= flag::WRITE;
    }
    if gup_flags & setting!(audit.foll_longterm) != 0 {
        flags |= flag::LONGTERM;
    }
    if gup_flags & setting!(audit.foll_force) != 0 {
        flags |= flag::FORCE;
    }
    flags
}

/// `get_user_pages` and its kin for reading and not for long: counted, not listed.
#[inline(always)]
fn is_read_only(function: u8, flags: u8) -> bool {
    function >= Gup::Get as u8 && flags & (flag::WRITE | flag::LONGTERM) == 0
}

/// Whether a call is a part of the one under way: before 6.2 `get_user_pages_unlocked` is the slow path of others. Any
/// other call means that the return of the one under way was missed.
#[inline(always)]
fn is_inner(frame: &Frame, function: u8, first: u64) -> bool {
    let bytes = frame.audit.asked << setting!(kernel.page_shift);
    function == Gup::GetUnlocked as u8
        && frame.audit.key.function != function
        && first.wrapping_sub(frame.audit.first) < bytes
}

/// What lies behind the range.
#[inline(always)]
fn look<const WALKS: bool>(frame: &mut Frame, mm: u64) {
    let task = kernel::task();
    frame.audit.key.filesystem = 0;
    frame.audit.key.kind = 0;
    frame.audit.key.rules = 0;
    zero!(frame.buffer.vmas, frame.buffer.backings[0].vmas);
    frame.audit.key.sight = if mm != 0 && mm != kernel::mm(task) {
        RangeCoverage::Remote
    } else if WALKS && frame.audit.asked != 0 {
        walk_over(frame, task)
    } else {
        RangeCoverage::None
    } as u8;
}

#[inline(always)]
fn walk_over(frame: &mut Frame, task: *mut task_struct) -> RangeCoverage {
    zero!(frame.buffer.vm_files, frame.buffer.files, frame.buffer.flags, frame.buffer.traits.0);
    zero!(frame.registration.vm_files, frame.registration.files, frame.registration.flags);
    let address = frame.audit.first;
    let (end, wraps) = address.overflowing_add(frame.audit.asked << setting!(kernel.page_shift));
    if wraps {
        return RangeCoverage::None;
    }
    walk::walk(frame, task, address, end);
    let backings = &frame.buffer.backings;
    if backings[0].vmas == 0 {
        return if frame.buffer.walk == Walk::Busy as u8 { RangeCoverage::Busy } else { RangeCoverage::Hole };
    }
    frame.audit.key.filesystem = backings[0].filesystem;
    frame.audit.key.kind = backings[0].kind.0;
    frame.audit.key.rules = rules(frame.buffer.traits);
    if frame.buffer.backings[1].vmas != 0 {
        frame.audit.key.flags |= flag::MIXED;
    }
    if frame.buffer.walk == Walk::Complete as u8 { RangeCoverage::Whole } else { RangeCoverage::Part }
}

/// The return of a function; `_fast` returns an int, and no count of pages is larger.
#[inline(never)]
fn leave(function: u32, ret: u64) {
    // SAFETY: takes nothing, cannot fail.
    let now = unsafe { bpf_ktime_get_ns() };
    let under_way = frame::current().filter(|frame| frame.stage == Stage::Pin as u32);
    let Some(frame) = under_way.filter(|frame| u32::from(frame.audit.key.function) == function) else {
        // Of the others a call without an entry may be one that is not listed.
        if function < Gup::Get as u32 && session::wants_current() {
            count(AuditCounter::MissedEntries);
        }
        return;
    };
    if is_read_only(frame.audit.key.function, frame.audit.key.flags) {
        return frame::close(frame);
    }
    let ret = ret as i32;
    frame.audit.key.error = if ret < 0 { ret.unsigned_abs() } else { 0 };
    count(AuditCounter::Returns);
    if let Some(totals) = AUDIT.get_ptr_mut(frame.audit.key).or_else(|| new_row(frame)) {
        put(frame, totals, now, ret);
    } else {
        count(AuditCounter::LostRows);
    }
    frame::close(frame);
}

#[inline(always)]
fn new_row(frame: &Frame) -> Option<*mut AuditTotals> {
    by_backing::name_filesystem(frame.audit.key.filesystem);
    let zeros = AuditTotals { calls: 0, asked: 0, got: 0, time_ns: 0, vmas: 0, own_ns: 0 };
    // Another CPU may have made it meanwhile; then this fails and the look-up finds that one.
    let _ = AUDIT.insert(frame.audit.key, zeros, BPF_NOEXIST.into());
    AUDIT.get_ptr_mut(frame.audit.key)
}

#[inline(always)]
fn put(frame: &Frame, totals: *mut AuditTotals, now: u64, ret: i32) {
    macro_rules! plus {
        ($field:ident, $value:expr) => {
            // SAFETY: a value of the map; only the address of its field is taken.
            add(unsafe { &raw mut (*totals).$field }, $value);
        };
    }
    plus!(calls, 1);
    plus!(asked, frame.audit.asked);
    plus!(time_ns, now - frame.audit.start_ns);
    plus!(vmas, u64::from(frame.buffer.vmas));
    plus!(own_ns, frame.audit.own_ns);
    if ret > 0 {
        plus!(got, u64::from(ret.unsigned_abs()));
    }
}

#[inline(always)]
fn count(counter: AuditCounter) {
    if let Some(slots) = own(&AUDIT_COUNTERS, 0) {
        add(slots.cast::<u64>().wrapping_add(counter as usize), 1);
    }
}
