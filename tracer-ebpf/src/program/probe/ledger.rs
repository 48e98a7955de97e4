//! The kernel's own word on every `io_uring_register(2)`:
//! `TP_PROTO(void *ctx, unsigned opcode, unsigned nr_files, unsigned nr_bufs, long ret)` of
//! `io_uring:io_uring_register` (5.10 has `bool cqe_ev_fd` before `ret`).
//!
//! It fires in the task, after the function has returned and before the system call does, for every call, whatever
//! became of the hooks: so it closes what they opened, and tells what they missed.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_ktime_get_ns, bpf_task_pt_regs},
    macros::{kretprobe, raw_tracepoint, tracepoint},
    programs::{RawTracePointContext, RetProbeContext, TracePointContext},
};
use tracer_ebpf::{
    counter::Counter,
    operation::Operation,
    record::{Frame, Header, KIND_REGISTRATION, RegistrationRecord, Stage, flag},
};

use super::{event, lock, phase, registration::clear};
use crate::program::{
    calls, cgroup, fold, frame, kernel, maps::Counters, process, records, ring, session, settings::setting, tables,
    verifier::forgotten,
};

/// `IORING_REGISTER_RING_FDS` of `include/uapi/linux/io_uring.h`, since 5.18. The ring is the caller's own as a rule, for
/// which it gets an index.
const REGISTER_RING_FDS: u32 = 20;
/// `IORING_REGISTER_USE_REGISTERED_RING`, since 6.3.
const USE_REGISTERED_RING: u32 = 1 << 31;

#[raw_tracepoint]
pub fn ledger(context: RawTracePointContext) -> i32 {
    close(&context);
    0
}

/// The same as a perf event. Since 7.0 a raw tracepoint's program can be preempted, and is then skipped for every
/// other task on the CPU; a perf event's runs with preemption off.
#[tracepoint]
pub fn ledger_classic(context: TracePointContext) -> u32 {
    close(&context);
    0
}

/// The same at the return of the system call's function, for who may attach programs of kprobe.multi alone. It does not
/// tell the ring.
#[kretprobe]
pub fn ledger_return_kretprobe(context: RetProbeContext) -> u32 {
    close(&Returned::<RSI> { context });
    0
}

/// The same for 32-bit callers.
#[kretprobe]
pub fn ledger_return_compat_kretprobe(context: RetProbeContext) -> u32 {
    close(&Returned::<RCX> { context });
    0
}

/// Where the registers of the second argument of a system call lie in `struct pt_regs` of x86-64: of 64-bit callers, ...
const RSI: u32 = 104;
/// ... and of 32-bit ones.
const RCX: u32 = 88;

/// A call by its return; its caller's registers are where they were at its entry.
struct Returned<const OPCODE: u32> {
    context: RetProbeContext,
}

impl<const OPCODE: u32> EbpfContext for Returned<OPCODE> {
    #[inline(always)]
    fn as_ptr(&self) -> *mut c_void {
        self.context.as_ptr()
    }
}

impl<const OPCODE: u32> Call for Returned<OPCODE> {
    #[inline(always)]
    fn opcode(&self) -> u32 {
        // SAFETY: the helper takes the current task, and gives its registers, typed.
        unsafe { kernel::typed(bpf_task_pt_regs(kernel::task()).cast_unsigned(), OPCODE) }
    }

    #[inline(always)]
    fn ring(&self) -> u64 {
        0
    }

    #[inline(always)]
    fn ret(&self) -> i64 {
        self.context.ret::<u64>().cast_signed()
    }

    /// What the system call refuses before the tracepoint: no descriptor, or not a ring's.
    #[inline(always)]
    fn is_foreign(&self) -> bool {
        matches!(self.ret(), EBADF | EOPNOTSUPP)
    }
}

const EBADF: i64 = -9;
const EOPNOTSUPP: i64 = -95;

/// What the tracepoint tells of a call.
trait Call: EbpfContext {
    fn opcode(&self) -> u32;
    fn ring(&self) -> u64;
    fn ret(&self) -> i64;

    /// Whether a call without an entry may be one of which the tracepoint does not tell.
    #[inline(always)]
    fn is_foreign(&self) -> bool {
        false
    }
}

impl Call for RawTracePointContext {
    #[inline(always)]
    fn opcode(&self) -> u32 {
        self.arg(1)
    }

    #[inline(always)]
    fn ring(&self) -> u64 {
        self.arg(0)
    }

    /// The sixth argument, which only 5.10 has, is read by a helper: a load of it would keep the program from a
    /// tracepoint that has five, and of two loads the compiler makes one with a computed offset, which the verifier
    /// refuses.
    #[inline(always)]
    fn ret(&self) -> i64 {
        if setting!(kernel.ledger_ret) == 5 {
            kernel::read(self.as_ptr() as u64, 5 * size_of::<u64>() as u32).unwrap_or(0)
        } else {
            self.arg(4)
        }
    }
}

/// `struct trace_event_raw_io_uring_register`.
#[repr(C)]
struct Event {
    entry: u64,
    ring: u64,
    opcode: u32,
    files: u32,
    buffers: u32,
    ret: i64,
}

impl Call for TracePointContext {
    #[inline(always)]
    fn opcode(&self) -> u32 {
        event!(self, Event, opcode)
    }

    #[inline(always)]
    fn ring(&self) -> u64 {
        event!(self, Event, ring)
    }

    #[inline(always)]
    fn ret(&self) -> i64 {
        event!(self, Event, ret)
    }
}

#[inline(always)]
fn close(call: &impl Call) {
    // First, so that the hook's own work is not in the time behind the function.
    let ended = calls::clock();
    let opcode = call.opcode();
    let Some(operation) = Operation::from_opcode(opcode) else {
        if setting!(session.rings) != 0 && opcode & !USE_REGISTERED_RING == REGISTER_RING_FDS && call.ret() > 0 {
            ring::fd_registered(call.ring());
        }
        return;
    };
    let Some(counters) = Counters::get() else { return };
    let ret = call.ret();
    let early = match frame::current() {
        Some(frame) if frame.stage == Stage::Idle as u32 => {
            let early = frame.early != 0;
            if early || setting!(kernel.calls) != 0 {
                frame::close(frame);
            }
            early
        }
        Some(frame) if frame.registration.operation == operation as u8 => {
            return seen(call, frame, &counters, operation, ret, ended);
        }
        Some(frame) => {
            let mistaken = frame.registration.operation == Operation::Unregister as u8;
            counters.add(if mistaken { Counter::InternalUnregisters } else { Counter::Reentries }, 1);
            let early = frame.early != 0;
            frame::close(frame);
            early
        }
        None => false,
    };
    without_entry(call, &counters, operation, ret, early);
}

/// A call of which the entry was seen.
#[inline(always)]
fn seen(call: &impl Call, frame: &mut Frame, counters: &Counters, operation: Operation, ret: i64, ended: u64) {
    if operation as u32 == Operation::Unregister as u32 {
        counters.add_of(Counter::Entries, operation, 1);
    }
    let returned = frame.stage == Stage::Returned as u32;
    if !returned {
        // SAFETY: takes nothing, cannot fail.
        frame.end_ns = if setting!(kernel.calls) != 0 { ended } else { unsafe { bpf_ktime_get_ns() } };
        frame.left_ns = ended;
    }
    let operation = operation_of(frame);
    fold::registration(call, frame, counters, operation, ret, returned, ended);
    if setting!(session.timed) != 0 {
        lock::end(frame);
        phase::end(frame);
    }
    frame::close(frame);
}

/// The frame's operation, of which the verifier knows no more than that it is one: it would check all that follows for
/// each opcode.
#[inline(always)]
fn operation_of(frame: &Frame) -> Operation {
    let number = forgotten(&frame.registration.operation);
    const { assert!(Operation::COUNT.is_power_of_two(), "the mask lets every operation through, and nothing else") };
    // SAFETY: the mask leaves a number below `COUNT`, and each of those is an operation's.
    unsafe { core::mem::transmute(number & (Operation::COUNT as u8 - 1)) }
}

/// A call of which no entry was seen: refused on the way, missed, or begun before calls were counted (`early`). What it did
/// to the ring's table holds all the same.
#[inline(always)]
fn without_entry(call: &impl Call, counters: &Counters, operation: Operation, ret: i64, early: bool) {
    if call.is_foreign() {
        return;
    }
    if !session::wants_current() {
        return session::count_untold();
    }
    if early {
        counters.add(Counter::EarlyCalls, 1);
    } else {
        unseen(counters, operation, ret);
    }
    if setting!(session.rings) != 0 {
        ring::without_entry(call.ring(), operation, ret);
    }
    if setting!(session.tables) != 0 {
        tables::ended(call.ring(), operation, ret);
    }
    if early || setting!(session.records) == 0 {
        return;
    }
    let flags = if ret < 0 { flag::REFUSED_EARLY } else { flag::ENTRY_MISSED };
    if let Some(frame) = frame::open() {
        emit(frame, operation, call.ring(), ret, flags);
        frame::close(frame);
    }
}

/// One that was refused early, or missed.
#[inline(always)]
fn unseen(counters: &Counters, operation: Operation, ret: i64) {
    if ret >= 0 {
        counters.succeeded(operation);
    } else {
        counters.failed(operation, ret);
    }
    counters.add_of(if ret < 0 { Counter::RefusedEarly } else { Counter::MissedEntries }, operation, 1);
    let installs = operation as u8 != Operation::Unregister as u8;
    if setting!(session.processes) != 0 && installs {
        process::unmeasured_call(ret);
    }
    if setting!(session.workloads) != 0 && installs {
        cgroup::call(ret);
    }
}

#[inline(always)]
fn emit(frame: &mut Frame, operation: Operation, ring: u64, ret: i64, flags: u32) {
    // SAFETY: takes nothing, cannot fail.
    let start_ns = unsafe { bpf_ktime_get_ns() };
    let registration: &mut RegistrationRecord = &mut frame.registration;
    clear(registration);
    registration.header = Header { kind: KIND_REGISTRATION, tid: kernel::pid_tid().1, start_ns };
    registration.operation = operation as u8;
    registration.ring = ring;
    registration.requested = u32::MAX;
    registration.ret = ret;
    registration.flags = flags;
    records::name_process(registration);
    records::ring(registration);
    records::emit(&raw const *registration, Counter::LostRegistrationRecords);
}
