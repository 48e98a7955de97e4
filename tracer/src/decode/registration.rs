//! A registration in the user's terms, made of its records. What was not measured is `None`.

use schemars::JsonSchema;
use serde::Serialize;
use tracer_ebpf::{
    operation::Operation,
    record::{BufferRecord, RegistrationRecord, Walk, flag},
};

use super::{
    Capabilities, Clock, Filesystems, PARTIAL, Pid,
    capabilities::pins_buffers,
    comm, filesystem,
    record_coverage::{RecordCoverage, saw_a_vma},
    result_name,
};

/// One registration with its buffers. Times are nanoseconds, pinscope's own walks left out of all but `walk_ns`.
#[expect(clippy::struct_excessive_bools, reason = "each is a bound on another figure")]
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Registration {
    /// Wall time of the entry, RFC 3339 in UTC.
    pub time: Option<String>,
    /// `CLOCK_MONOTONIC` at the entry.
    pub start_ns: u64,
    /// Name of the [`Operation`].
    #[schemars(with = "Operation")]
    pub operation: &'static str,
    /// `ok`, `partial` (an update that installed some of its buffers and stopped at one) or the errno's name.
    pub result: String,
    /// What the kernel's function returned: a negative errno, or for an update the number done.
    pub ret: i64,
    /// The buffer at which the kernel stopped, where it came as far as one.
    pub refused: Option<Refused>,
    /// Thread group.
    pub pid: Pid,
    /// Thread.
    pub tid: Pid,
    /// `task_struct.comm`.
    pub comm: String,
    /// Real user.
    pub uid: u32,
    /// Kernel's id of the cgroup (v2).
    pub cgroup_id: Option<u64>,
    /// The ring.
    pub ring: Option<Ring>,
    /// Buffers that were asked for (register and update).
    pub requested: Option<u32>,
    /// Buffers that reached the kernel's per-buffer function.
    pub buffers: Option<u32>,
    /// Those that it refused.
    pub failed_buffers: Option<u32>,
    /// Bytes asked for: the sum of the buffers' lengths.
    pub bytes: Option<u64>,
    /// Bytes of the buffers that are registered when the call returns.
    pub bytes_registered: Option<u64>,
    /// Distinct VMAs touched; a lower bound unless `vmas_complete`, an upper one where `vmas_repeated`.
    pub vmas: Option<u64>,
    /// Every buffer was walked to its end, or to a hole in it, where the kernel stops as well.
    pub vmas_complete: bool,
    /// Buffers came back to VMAs that may have been counted.
    pub vmas_repeated: bool,
    /// VMA look-ups that the kernel made while pinning.
    pub lookups: Option<u64>,
    /// Distinct files; a lower bound where `files_capped`.
    pub files: Option<u32>,
    /// There were more files than are told apart.
    pub files_capped: bool,
    /// Distinct `vm_file`s, at which the kernel's rules look: a file that was opened twice is two. A lower bound where
    /// `vm_files_capped`.
    pub vm_files: Option<u32>,
    /// There were more `vm_file`s than are told apart.
    pub vm_files_capped: bool,
    /// From entry to return.
    pub duration_ns: Option<u64>,
    /// In the pins; `None` as well where no pin was reached.
    pub pin_ns: Option<u64>,
    /// `duration_ns` less the pins.
    pub rest_ns: Option<u64>,
    /// The system call's own time, from its entry to its end.
    pub call_ns: Option<u64>,
    /// Of it before the function: the look-up of the ring, and the wait for its lock.
    pub wait_ns: Option<u64>,
    /// Of it behind the function; `None` where the function's return was not seen: it is in `duration_ns` then. With `wait_ns` and
    /// `duration_ns` it sums to `call_ns`.
    pub after_ns: Option<u64>,
    /// pinscope's own walks, in no other figure.
    pub walk_ns: Option<u64>,
    /// Minor faults taken in the pins. Before 5.17 `None` stands for none as well: hugetlb pages come in without one.
    pub minor_faults: Option<u64>,
    /// Major faults taken in the pins.
    pub major_faults: Option<u64>,
    /// Waits for `mmap_lock` (register and update), with `--locks`.
    pub lock_wait_ns: Option<u64>,
    /// Acquisitions of `mmap_lock`, likewise.
    pub lock_acquisitions: Option<u64>,
    /// In the page fault handler inside the pins, with `--phases`.
    pub fault_ns: Option<u64>,
    /// In look-ups of a VMA inside the pins, likewise.
    pub lookup_ns: Option<u64>,
    /// In the accounting function, likewise.
    pub accounting_ns: Option<u64>,
    /// What lies behind the buffers, summed over them, largest first.
    pub backings: Vec<Backing>,
    /// Why something above is unknown or a bound, one reason each.
    pub degraded: Vec<String>,
    /// The buffers, in the order in which the kernel took them.
    pub buffer_list: Vec<Buffer>,
}

/// The buffer at which the kernel stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Refused {
    /// Its place in the call's list, from 0.
    pub index: u64,
    /// The errno's name; unknown for one that the kernel refused before its function.
    pub result: Option<String>,
}

/// A ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Ring {
    /// A number of this session, from 1. The kernel's address is never shown.
    pub id: u64,
    /// The fd that `io_uring_setup` returned; unknown for a ring older than the session.
    pub fd: Option<i32>,
    /// From the ring's making to the entry.
    pub age_ns: Option<u64>,
    /// `IORING_SETUP_*`.
    pub flags: Option<u32>,
}

/// The part of a buffer, or of a registration, that has one backing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Backing {
    /// Name of the [`Class`](tracer_ebpf::backing::Class).
    #[schemars(with = "tracer_ebpf::backing::Class")]
    pub class: &'static str,
    /// The filesystem's name, for files and special mappings; `overlay (ext4)` where a file is found through another.
    pub filesystem: Option<String>,
    /// `MAP_SHARED`.
    pub shared: bool,
    /// The mapping may be written to.
    pub writable: bool,
    /// VMAs.
    pub vmas: u64,
    /// Bytes of the buffer, not of the VMAs.
    pub bytes: u64,
}

/// One buffer of a registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Buffer {
    /// Position among the buffers that reached the per-buffer function, from 0.
    pub index: u32,
    /// User address in hexadecimal, `0x...`.
    pub address: String,
    /// Bytes.
    pub length: u64,
    /// `ok` or the errno's name.
    pub result: Option<String>,
    /// 0 or a negative errno.
    pub ret: Option<i64>,
    /// Whether it is registered when the call returns: a buffer that was accepted is let go when another one of its register is
    /// refused. Of an empty slot false.
    pub registered: Option<bool>,
    /// VMAs touched.
    pub vmas: Option<u64>,
    /// Name of the [`Walk`]'s outcome.
    #[schemars(with = "Walk")]
    pub walk: &'static str,
    /// VMA look-ups that the kernel made while pinning.
    pub lookups: Option<u64>,
    /// Distinct files.
    pub files: Option<u32>,
    /// There were more files than are told apart.
    pub files_capped: bool,
    /// Distinct `vm_file`s.
    pub vm_files: Option<u32>,
    /// There were more `vm_file`s than are told apart.
    pub vm_files_capped: bool,
    /// In the per-buffer function.
    pub duration_ns: Option<u64>,
    /// In the pin; `None` as well where it was not reached.
    pub pin_ns: Option<u64>,
    /// `duration_ns` less the pin.
    pub rest_ns: Option<u64>,
    /// pinscope's own walk.
    pub walk_ns: Option<u64>,
    /// Minor faults taken in the pin.
    pub minor_faults: Option<u64>,
    /// Major faults taken in the pin.
    pub major_faults: Option<u64>,
    /// `io_mapped_ubuf.nr_bvecs`.
    pub bvecs: Option<u32>,
    /// Bytes of the folios that the kernel coalesced to (a page where it did not).
    pub folio_size: Option<u64>,
    /// What lies behind it.
    pub backings: Vec<Backing>,
}

/// What a record alone does not say.
pub(super) struct Context<'a> {
    pub(super) capabilities: &'a Capabilities,
    pub(super) clock: Clock,
    pub(super) filesystems: &'a dyn Filesystems,
}

impl Registration {
    /// Whether it failed, or did not all it was asked for.
    pub fn is_short(&self) -> bool {
        self.ret < 0 || self.result == PARTIAL
    }

    /// Number of the ring is `ring`; `buffers` are those whose records came.
    pub(super) fn new(
        context: &Context<'_>,
        operation: Operation,
        record: &RegistrationRecord,
        ring: Option<u64>,
        buffers: &[(Walk, BufferRecord)],
    ) -> Self {
        let sight = RecordCoverage { capabilities: context.capabilities, operation, record, buffers };
        let times = sight.times();
        let locks = context.capabilities.locks && sight.seen() && pins_buffers(operation);
        let stays = |buffer: &BufferRecord| match operation {
            Operation::Update => i64::from(buffer.index) < record.ret,
            _ => record.ret >= 0,
        };
        let buffer_list: Vec<_> =
            buffers.iter().map(|(walk, buffer)| Buffer::new(context, *walk, buffer, stays(buffer))).collect();
        let faults = times.pin.filter(|_| !sight.has(flag::FAULTS_UNTOLD));
        let faults = faults.filter(|_| context.capabilities.tells_faults(record.minor_faults, record.major_faults));
        let called = context.capabilities.calls && sight.has(flag::CALL_TIMED);
        Self {
            time: context.clock.rfc3339(record.header.start_ns).filter(|_| record.header.start_ns > 0),
            start_ns: record.header.start_ns,
            operation: operation.name(),
            result: if sight.has(flag::PARTIAL) { PARTIAL.to_owned() } else { result_name(record.ret) },
            ret: record.ret,
            refused: sight.refused(),
            pid: record.pid.into(),
            tid: record.header.tid.into(),
            comm: comm(&record.comm),
            uid: record.uid,
            cgroup_id: (record.cgroup > 0).then_some(record.cgroup),
            ring: ring.map(|id| Ring::new(id, record)),
            requested: (sight.seen() && pins_buffers(operation) && record.requested != u32::MAX)
                .then_some(record.requested),
            buffers: sight.has_buffers().then_some(record.buffers),
            failed_buffers: (sight.has_buffers() && context.capabilities.buffer_returns && !sight.parts_missed())
                .then_some(record.failed_buffers),
            bytes: sight.sized().then_some(record.bytes),
            bytes_registered: sight.registered(),
            vmas: sight.walked().then_some(record.vmas),
            vmas_complete: sight.walked_far(),
            vmas_repeated: sight.walked() && sight.has(flag::VMAS_REPEATED),
            lookups: (context.capabilities.lookups && sight.pinned()).then_some(record.lookups),
            files: sight.walked().then_some(record.files.into()),
            files_capped: sight.walked() && sight.has(flag::FILES_CAPPED),
            vm_files: sight.walked().then_some(record.vm_files),
            vm_files_capped: sight.walked() && sight.has(flag::VM_FILES_CAPPED),
            duration_ns: times.duration,
            pin_ns: times.pin,
            rest_ns: times.rest,
            call_ns: called.then_some(record.call_ns),
            wait_ns: called.then_some(record.wait_ns),
            after_ns: (called && context.capabilities.returns[operation as usize] && !sight.has(flag::RETURN_MISSED))
                .then(|| record.call_ns.saturating_sub(record.wait_ns).saturating_sub(record.duration_ns)),
            walk_ns: sight.walked().then_some(record.walk_ns),
            minor_faults: faults.map(|_| record.minor_faults),
            major_faults: faults.map(|_| record.major_faults),
            lock_wait_ns: locks.then_some(record.lock_wait_ns),
            lock_acquisitions: locks.then_some(u64::from(record.lock_reads) + u64::from(record.lock_writes)),
            fault_ns: faults.filter(|_| context.capabilities.fault_times).map(|_| record.fault_ns),
            lookup_ns: times.pin.filter(|_| context.capabilities.lookup_times).map(|_| record.lookup_ns),
            accounting_ns: (sight.has_buffers() && context.capabilities.accounting_times)
                .then_some(record.accounting_ns),
            backings: sum_backings(&buffer_list),
            degraded: sight.reasons(),
            buffer_list,
        }
    }
}

impl Ring {
    fn new(id: u64, record: &RegistrationRecord) -> Self {
        let capabilities = record.flags & flag::RING_KNOWN != 0;
        Self {
            id,
            fd: capabilities.then_some(record.ring_fd),
            age_ns: capabilities.then(|| record.header.start_ns.checked_sub(record.ring_created_ns)).flatten(),
            flags: capabilities.then_some(record.ring_flags),
        }
    }
}

impl Buffer {
    /// `stays` unless the call was refused, or stopped before the buffer.
    fn new(context: &Context<'_>, walk: Walk, record: &BufferRecord, stays: bool) -> Self {
        let capabilities = context.capabilities;
        let has = |flag: u32| record.flags & flag != 0;
        let walked = saw_a_vma(walk, record);
        let parts_missed = has(flag::PARTS_MISSED);
        // The record is sent at the function's return, so that only the pin's can have been missed.
        let duration = capabilities.buffer_returns.then_some(record.duration_ns);
        let pin = (capabilities.pins && has(flag::PINNED) && !parts_missed).then_some(record.pin_ns);
        let faults = pin.filter(|_| !has(flag::FAULTS_UNTOLD));
        let faults = faults.filter(|_| capabilities.tells_faults(record.minor_faults, record.major_faults));
        let rest = match pin {
            Some(pin) => duration.and_then(|duration| duration.checked_sub(pin)),
            None => duration.filter(|_| capabilities.pins && !has(flag::PINNED) && !parts_missed),
        };
        Self {
            index: record.index,
            address: format!("{:#x}", record.address),
            length: record.length,
            result: capabilities.buffer_returns.then(|| result_name(record.ret.into())),
            ret: capabilities.buffer_returns.then_some(record.ret.into()),
            registered: capabilities.buffer_returns.then_some(stays && record.ret == 0 && record.length > 0),
            vmas: walked.then_some(record.vmas.into()),
            walk: walk.name(),
            lookups: (capabilities.lookups && has(flag::PINNED)).then_some(record.lookups.into()),
            files: walked.then_some(record.files.into()),
            files_capped: walked && has(flag::FILES_CAPPED),
            vm_files: walked.then_some(record.vm_files),
            vm_files_capped: walked && has(flag::VM_FILES_CAPPED),
            duration_ns: duration,
            pin_ns: pin,
            rest_ns: rest,
            // It took its time also where nothing of it counts, since the buffer was refused before its pin.
            walk_ns: (walk != Walk::None || record.walk_ns > 0).then_some(record.walk_ns),
            minor_faults: faults.map(|_| record.minor_faults),
            major_faults: faults.map(|_| record.major_faults),
            bvecs: (record.bvecs > 0).then_some(record.bvecs),
            folio_size: (record.folio_shift > 0).then(|| 1_u64.checked_shl(record.folio_shift)).flatten(),
            backings: if walked { slices(context, record) } else { Vec::new() },
        }
    }
}

fn slices(context: &Context<'_>, record: &BufferRecord) -> Vec<Backing> {
    let used = record.backings.iter().filter(|slice| slice.vmas > 0);
    // What only GUP's rules tell apart is one backing here.
    merge(used.filter_map(|slice| {
        Some(Backing {
            class: slice.kind.class()?.name(),
            filesystem: filesystem(slice.kind, context.filesystems.name(slice.filesystem)),
            shared: slice.kind.is_shared(),
            writable: slice.kind.is_writable(),
            vmas: slice.vmas.into(),
            bytes: slice.bytes,
        })
    }))
}

/// The backings of all buffers, largest first.
fn sum_backings(buffers: &[Buffer]) -> Vec<Backing> {
    let mut backings = merge(buffers.iter().flat_map(|buffer| &buffer.backings).cloned());
    backings.sort_by_key(|backing| std::cmp::Reverse(backing.bytes));
    backings
}

/// Equal ones added up, in the order in which they come first.
fn merge(backings: impl Iterator<Item = Backing>) -> Vec<Backing> {
    let mut merged: Vec<Backing> = Vec::new();
    for backing in backings {
        let same = |other: &&mut Backing| {
            (other.class, &other.filesystem, other.shared, other.writable)
                == (backing.class, &backing.filesystem, backing.shared, backing.writable)
        };
        match merged.iter_mut().find(same) {
            Some(other) => {
                other.vmas = other.vmas.saturating_add(backing.vmas);
                other.bytes = other.bytes.saturating_add(backing.bytes);
            }
            None => merged.push(backing),
        }
    }
    merged
}
