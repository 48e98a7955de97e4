//! Records on their way to user space: what is known of their process and ring, and the ring buffer.

use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_uid_gid, bpf_ringbuf_output};
use tracer_ebpf::{
    counter::Counter,
    record::{RegistrationRecord, flag},
};

use crate::program::{
    kernel,
    maps::{RECORDS, RINGS, count},
};

/// Fills in the process; also for calls of which no entry was seen.
#[inline(always)]
pub fn name_process(registration: &mut RegistrationRecord) {
    let (pid, tid) = kernel::pid_tid();
    registration.pid = pid;
    registration.header.tid = tid;
    registration.uid = bpf_get_current_uid_gid() as u32;
    registration.cgroup = kernel::cgroup_id();
    registration.comm = bpf_get_current_comm().unwrap_or_default();
}

/// Fills in what is known of the ring.
#[inline(always)]
pub fn ring(registration: &mut RegistrationRecord) {
    let Some(ring) = RINGS.get_ptr(registration.ring) else { return };
    // SAFETY: a value of the map, of plain integers.
    let ring = unsafe { &*ring };
    if ring.created_ns == 0 {
        return;
    }
    registration.flags |= flag::RING_KNOWN;
    registration.ring_created_ns = ring.created_ns;
    registration.ring_fd = ring.fd;
    registration.ring_flags = ring.flags;
}

/// Sends a record; one that finds no room is counted.
#[inline(always)]
pub fn emit<T>(record: *const T, lost: Counter) {
    let data = record.cast_mut().cast();
    // SAFETY: the record is a whole `T` in a map's value.
    let ret = unsafe { bpf_ringbuf_output((&raw const RECORDS).cast_mut().cast(), data, size_of::<T>() as u64, 0) };
    if ret != 0 {
        count(lost);
    }
}
