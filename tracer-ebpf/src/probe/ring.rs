//! Rings as they are made: `TP_PROTO(int fd, void *ctx, u32 sq_entries, u32 cq_entries, u32 flags)` of
//! `io_uring:io_uring_create`.

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::raw_tracepoint, programs::RawTracePointContext};
use tracer_ebpf::record::Ring;

use crate::maps::RINGS;

#[raw_tracepoint]
pub fn ring_created(context: RawTracePointContext) -> i32 {
    // SAFETY: takes nothing, cannot fail.
    let created_ns = unsafe { bpf_ktime_get_ns() };
    let ring = Ring { created_ns, fd: context.arg(0), flags: context.arg(4) };
    let address: u64 = context.arg(1);
    // The oldest ring makes room where the map is full.
    let _ = RINGS.insert(address, ring, 0);
    0
}
