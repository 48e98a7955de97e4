//! The kernel's own word on every `io_uring_register(2)`:
//! `TP_PROTO(void *ctx, unsigned opcode, unsigned nr_files, unsigned nr_bufs, long ret)` of
//! `io_uring:io_uring_register` (5.10 has `bool cqe_ev_fd` before `ret`).
//!
//! It fires in the task, after the function has returned and before the system call does, for every call, whatever
//! became of the hooks: so it closes what they opened, and tells what they missed.

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::raw_tracepoint, programs::RawTracePointContext};
use tracer_ebpf::{
    counter::Counter,
    operation::Operation,
    record::{Frame, Header, KIND_REGISTRATION, RegistrationRecord, Stage, flag},
};

use super::registration::clear;
use crate::{
    fold, frame, kernel,
    maps::{Counters, count_result, setting},
    session,
};

#[raw_tracepoint]
pub fn ledger(context: RawTracePointContext) -> i32 {
    if let Some(operation) = Operation::from_opcode(context.arg(1)) {
        close(&context, operation);
    }
    0
}

#[inline(always)]
fn close(context: &RawTracePointContext, operation: Operation) {
    let ret = result(context);
    match frame::current().filter(|frame| frame.stage != Stage::Idle as u32) {
        Some(frame) if frame.registration.operation == operation as u8 => {
            let returned = frame.stage == Stage::Returned as u32;
            if !returned {
                // SAFETY: takes nothing, cannot fail.
                frame.end_ns = unsafe { bpf_ktime_get_ns() };
            }
            fold::registration(context, frame, operation, ret, returned);
            frame::close(frame);
        }
        _ => without_entry(context, operation, ret),
    }
}

/// The argument `ret`. The two loads must stay apart: the verifier takes no computed offset into the context, and
/// a load of a sixth argument would keep the program from a tracepoint that has five.
#[inline(always)]
fn result(context: &RawTracePointContext) -> i64 {
    if setting!(kernel.ledger_ret) == 5 {
        let ret = context.arg(5);
        core::hint::black_box(ret)
    } else {
        context.arg(4)
    }
}

/// A call of which no entry was seen: refused on the way, or missed.
#[inline(always)]
fn without_entry(context: &RawTracePointContext, operation: Operation, ret: i64) {
    if !session::wants_current() {
        return;
    }
    let flags = if ret < 0 { flag::REFUSED_EARLY } else { flag::ENTRY_MISSED };
    if let Some(counters) = Counters::get() {
        counters.add_of(Counter::Ledger, operation, 1);
        let counter = if ret < 0 { Counter::RefusedEarly } else { Counter::MissedEntries };
        counters.add_of(counter, operation, 1);
    }
    count_result(operation, ret);
    if setting!(session.records) == 0 {
        return;
    }
    if let Some(frame) = frame::open() {
        emit(frame, operation, context.arg(0), ret, flags);
        frame::close(frame);
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
    fold::name_process(registration);
    fold::ring(registration);
    fold::emit(&raw const *registration, Counter::LostRegistrationRecords);
}
