//! What of one registration was seen, and why the rest was not.

use tracer_ebpf::{
    operation::Operation,
    record::{BACKING_SLICES, BufferRecord, FILES, RegistrationRecord, Walk, flag},
};

use super::{Capabilities, names::result_name, registration::Refused};

/// A registration's record, held against what the attached probes can tell.
pub(super) struct RecordCoverage<'a> {
    pub(super) capabilities: &'a Capabilities,
    pub(super) operation: Operation,
    pub(super) record: &'a RegistrationRecord,
    /// The buffers whose records came.
    pub(super) buffers: &'a [(Walk, BufferRecord)],
}

/// Times of a registration in nanoseconds.
pub(super) struct Times {
    pub(super) duration: Option<u64>,
    pub(super) pin: Option<u64>,
    pub(super) rest: Option<u64>,
}

impl RecordCoverage<'_> {
    pub(super) fn has(&self, flag: u32) -> bool {
        self.record.flags & flag != 0
    }

    /// The function's entry was seen.
    pub(super) fn seen(&self) -> bool {
        !self.has(flag::REFUSED_EARLY | flag::ENTRY_MISSED)
    }

    /// Its buffers were seen, if there were any.
    pub(super) fn has_buffers(&self) -> bool {
        self.seen() && self.capabilities.has_buffers(self.operation)
    }

    /// Their lengths were: a buffer adds its own when it returns.
    pub(super) fn sized(&self) -> bool {
        self.has_buffers() && !(self.parts_missed() && self.absent() > 0)
    }

    /// Bytes that are registered when the call returns: none of a call that was refused, all of a register that was not. Of
    /// an update only where each buffer's own result was seen.
    pub(super) fn registered(&self) -> Option<u64> {
        let told = match self.operation {
            _ if self.record.ret < 0 => self.has_buffers(),
            Operation::Update => self.sized() && self.capabilities.buffer_returns && !self.parts_missed(),
            _ => self.sized(),
        };
        told.then_some(self.record.registered)
    }

    /// Their VMAs were. That none was seen is a figure only where some walk came as far as the kernel does.
    pub(super) fn walked(&self) -> bool {
        let far = |buffer| walked_far(buffer) || self.never_pinned(buffer);
        let blind = self.has(flag::VMAS_PARTIAL) && self.record.vmas == 0 && !self.buffers.iter().any(far);
        self.has_buffers() && self.capabilities.walk && !blind
    }

    /// All VMAs that the kernel itself comes to were seen: to the end of each buffer, or to a hole in it.
    pub(super) fn walked_far(&self) -> bool {
        let far = |buffer| walked_far(buffer) || is_empty_slot(buffer) || self.never_pinned(buffer);
        let every = self.absent() == 0 && self.buffers.iter().all(far);
        self.walked() && (!self.has(flag::VMAS_PARTIAL) || every)
    }

    /// What walks that ended early make of VMAs, files and backings.
    fn short_walks(&self) -> Option<String> {
        if !self.has(flag::VMAS_PARTIAL) || !self.has_buffers() || !self.capabilities.walk || self.walked_far() {
            return None;
        }
        let busy = self.buffers.iter().any(|(walk, _)| *walk == Walk::Busy);
        let cause = if busy { ", since a writer held mmap_lock" } else { "" };
        let are = if self.walked() { "lower bounds" } else { "unknown" };
        Some(format!("a walk ended early{cause}: VMAs, files and backings are {are}"))
    }

    /// The kernel refused it for its size or address, without a look at its memory.
    fn never_pinned(&self, (_, buffer): &(Walk, BufferRecord)) -> bool {
        self.capabilities.pins && buffer.ret < 0 && buffer.flags & (flag::PINNED | flag::PARTS_MISSED) == 0
    }

    /// Buffers whose records did not come.
    fn absent(&self) -> usize {
        (self.record.buffers as usize).saturating_sub(self.buffers.len())
    }

    /// Some buffer's pin was reached.
    pub(super) fn pinned(&self) -> bool {
        self.has_buffers() && self.has(flag::PINNED)
    }

    /// A return of a part was not seen.
    pub(super) fn parts_missed(&self) -> bool {
        self.has(flag::PARTS_MISSED)
    }

    /// The buffer at which the kernel stopped. An update tells how many it had done before; a register stops at the buffer
    /// that fails, so that as many came before it as reached its function.
    pub(super) fn refused(&self) -> Option<Refused> {
        let failed = self.buffers.iter().map(|(_, buffer)| buffer).find(|buffer| buffer.ret < 0);
        let failed = failed.filter(|buffer| self.capabilities.buffer_returns && buffer.flags & flag::PARTS_MISSED == 0);
        let result = failed.map(|buffer| result_name(buffer.ret.into()));
        if self.has(flag::PARTIAL) {
            return Some(Refused { index: self.record.ret.unsigned_abs(), result });
        }
        failed.map(|buffer| Refused { index: buffer.index.into(), result })
    }

    pub(super) fn times(&self) -> Times {
        let duration = (self.seen() && self.has(flag::TIMED)).then_some(self.record.duration_ns);
        let parts = self.has_buffers() && self.capabilities.pins && !self.parts_missed();
        let pin = (parts && self.pinned()).then_some(self.record.pin_ns);
        let rest = match pin {
            Some(pin) => duration.and_then(|duration| duration.checked_sub(pin)),
            // Nothing was pinned, so all of it is the rest.
            None => duration.filter(|_| parts),
        };
        Times { duration, pin, rest }
    }

    /// Why figures are unknown or bounds.
    pub(super) fn reasons(&self) -> Vec<String> {
        let told = FLAGS.iter().filter(|(flag, _)| self.has(*flag));
        let mut reasons: Vec<_> = told.map(|(_, reason)| (*reason).to_owned()).collect();
        reasons.extend(self.short_walks());
        if self.has(flag::VMAS_REPEATED) && self.walked() {
            reasons.push("buffers came back to VMAs out of order: their number is an upper bound".to_owned());
        }
        for (flag, what) in [(flag::FILES_CAPPED, "files"), (flag::VM_FILES_CAPPED, "vm_files")] {
            if self.has(flag) {
                reasons.push(format!("more than {FILES} {what}: their number is a lower bound"));
            }
        }
        if self.has(flag::BACKINGS_CAPPED) {
            reasons.push(format!("more than {BACKING_SLICES} backings in a buffer: the others are not listed"));
        }
        let (absent, all) = (self.absent(), self.record.buffers);
        if self.has_buffers() && absent > 0 {
            reasons.push(format!("{absent} of {all} buffer records did not come: backings are lower bounds"));
        }
        reasons
    }
}

/// A walk that ended before its first VMA saw nothing, which is not zero.
pub(super) fn saw_a_vma(walk: Walk, buffer: &BufferRecord) -> bool {
    match walk {
        Walk::None => false,
        Walk::Complete | Walk::Hole => true,
        Walk::Busy | Walk::Cut => buffer.vmas > 0,
    }
}

fn walked_far((walk, _): &(Walk, BufferRecord)) -> bool {
    matches!(walk, Walk::Complete | Walk::Hole)
}

/// A slot of a sparse table: there is nothing to walk.
fn is_empty_slot((_, buffer): &(Walk, BufferRecord)) -> bool {
    buffer.address == 0 && buffer.length == 0
}

const FLAGS: [(u32, &str); 5] = [
    (flag::REFUSED_EARLY, "refused before the kernel looked at the buffers: nothing else to measure"),
    (flag::ENTRY_MISSED, "the entry was not seen: nothing else was measured"),
    (flag::RETURN_MISSED, "the return was not seen: the duration ends at the tracepoint io_uring_register"),
    (flag::PARTS_MISSED, "an entry or return of a buffer or of its pin was not seen: times of the parts are unknown"),
    (
        flag::FAULTS_UNTOLD,
        "page faults are unknown: the memory is on hugetlb pages, which before 6.5 a pin brings in without one, or may be",
    ),
];
