//! Rings as they are made: `TP_PROTO(int fd, void *ctx, u32 sq_entries, u32 cq_entries, u32 flags)` of
//! `io_uring:io_uring_create`.

use aya_ebpf::{
    EbpfContext as _,
    helpers::bpf_ktime_get_ns,
    macros::{raw_tracepoint, tracepoint},
    programs::{RawTracePointContext, TracePointContext},
};
use tracer_ebpf::{
    counter::Counter,
    record::{PastRing, Ring},
};

use super::event;
use crate::program::{
    maps::{PAST_RINGS, RINGS, count},
    settings::setting,
    tables,
};

#[raw_tracepoint]
pub fn ring_created(context: RawTracePointContext) -> i32 {
    created(context.arg(1), context.arg(0), context.arg(4));
    0
}

/// The same as a perf event, which since 7.0 is not skipped where a raw tracepoint's program would be.
#[tracepoint]
pub fn ring_created_classic(context: TracePointContext) -> u32 {
    created(event!(&context, Event, context), event!(&context, Event, fd), event!(&context, Event, flags));
    0
}

/// `struct trace_event_raw_io_uring_create`.
#[repr(C)]
struct Event {
    entry: u64,
    fd: i32,
    context: u64,
    submission: u32,
    completion: u32,
    flags: u32,
}

#[inline(always)]
fn created(address: u64, fd: i32, flags: u32) {
    // SAFETY: takes nothing, cannot fail.
    let created_ns = unsafe { bpf_ktime_get_ns() };
    if setting!(session.processes) != 0 {
        keep_past(address, created_ns);
    }
    if setting!(session.tables) != 0 {
        // One whose end was missed.
        tables::released(address);
    }
    let ring = Ring { created_ns, fd, flags, ..Ring::ZERO };
    // The oldest ring makes room where the map is full.
    let _ = RINGS.insert(address, ring, 0);
}

/// Puts away what is known of the ring that was at this address, if anything was installed on it.
#[inline(always)]
fn keep_past(ring: u64, until_ns: u64) {
    let Some(past) = RINGS.get_ptr(ring) else { return };
    // SAFETY: a value of the map, of plain integers.
    let past = unsafe { &*past };
    if past.installations | past.failed == 0 {
        return;
    }
    if PAST_RINGS.insert(PastRing { ring, until_ns }, past, 0).is_err() {
        count(Counter::LostRings);
    }
}
