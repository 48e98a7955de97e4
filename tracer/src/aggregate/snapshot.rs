//! The figures of a session at one moment, in the user's terms. What was not measured is `None`.
//!
//! It is what a report prints as JSON, and it can be read back whole: enums by their names, times and sizes as exact numbers. Its
//! size does not grow with the time it covers: a distribution has a fixed number of buckets and names those in use; a list has no
//! more entries than the map that it comes from, or than there are programs, cells or reasons.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracer_ebpf::{backing::Class, operation};

use super::{
    Books, CallTimes, Distribution, Locks, Phases, UnderWay,
    evidence::{CostCell, Installations, Judgements, Largest, Rings, SharedBufferFile},
    workloads::Workloads,
};
use crate::{
    decode::{Pid, pid},
    figure::Figures,
    human,
    sample::{Runs, SelfUsage},
};

/// Everything measured since the programs were attached, or in an interval. Times are nanoseconds, pinscope's
/// own walks left out of all but [`Walks::nanoseconds`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Snapshot {
    /// Length of what it covers.
    pub elapsed_ns: u64,
    /// By operation, in the order of its number; `None` where nothing counts calls.
    pub operations: Option<Vec<Operation>>,
    /// Where the time of register and update went.
    pub split: Option<Split>,
    /// Nanoseconds in the pins, by registration.
    pub pin: Option<Distribution>,
    /// VMAs of a registration whose buffers were all walked whole.
    pub registration_vmas: Option<Distribution>,
    /// VMAs of a buffer that was walked whole.
    pub buffer_vmas: Option<Distribution>,
    /// Buffers of a registration that reached the kernel's per-buffer function.
    pub registration_buffers: Option<Distribution>,
    /// Bytes of a registration that are registered when it returns; of those that did not fail.
    pub registration_bytes: Option<Distribution>,
    /// Bytes asked for and not registered; a call counts with 1 TiB at most, which is what any kernel takes in a buffer.
    pub refused_bytes: Option<u64>,
    /// Page faults taken in the pins.
    pub faults: Option<Faults>,
    /// VMA look-ups that the kernel made in the pins.
    pub lookups: Option<u64>,
    /// Buffers with more than one file.
    pub multi_file_buffers: Option<u64>,
    /// Buffers with more than one `vm_file`, at which the kernel's rules look: a file that was opened twice is two.
    pub multi_vm_file_buffers: Option<u64>,
    /// What lies behind the buffers, most bytes first.
    pub backings: Option<Vec<Backing>>,
    /// By process, most registrations first.
    pub processes: Option<Vec<Process>>,
    /// Installations before and after the ring's first request (Q1); `None` where this kernel does not tell.
    pub installations: Option<Installations>,
    /// Registrations by ring (Q1).
    pub rings: Option<Rings>,
    /// Accepted buffers by VMAs and size, with what they cost (Q2).
    pub costs: Option<Vec<CostCell>>,
    /// The registration with the most VMAs (Q3).
    pub largest_registration: Option<Largest>,
    /// The buffer with the most VMAs (Q3).
    pub largest_buffer: Option<Largest>,
    /// Buffers under each policy (Q4).
    pub judgements: Option<Judgements>,
    /// The files of buffers that span several, most buffers first (Q5).
    pub shared_buffer_files: Option<Vec<SharedBufferFile>>,
    /// By systemd unit, slice or container; `None` but in a service that keeps them apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workloads: Option<Workloads>,
    /// pinscope's own walks.
    pub walks: Option<Walks>,
    /// Unregistrations by others than the user, in no other figure.
    pub unregisters: Option<Unregisters>,
    /// Whether the counts add up.
    pub books: Books,
    /// Runs that the kernel skipped, of each program of which it tells: they were preempted or nested.
    pub skipped: Vec<Skipped>,
    /// What was lost, by cause.
    pub lost: Losses,
    /// Which figures are to be had; in JSON the reasons of those that are not, or only in part (`degraded`, `lower_bounds`).
    #[serde(flatten)]
    pub figures: Figures,
    /// Where the callers' time went, by operation; `None` unless the system call is hooked.
    pub calls: Option<Vec<CallTimes>>,
    /// Calls that have not ended.
    pub under_way: Option<UnderWay>,
    /// Waits for `mmap_lock`; `None` unless asked for.
    pub locks: Option<Locks>,
    /// The parts of the time; `None` unless asked for.
    pub phases: Option<Phases>,
    /// What is registered now; a service's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered: Option<super::registered::Registered>,
    /// Runs of the programs, where the kernel keeps statistics; a service's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<BTreeMap<String, Runs>>,
    /// pinscope itself; a service's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<SelfUsage>,
}

impl Snapshot {
    /// The operations; none where nothing counts calls.
    pub fn operations(&self) -> &[Operation] {
        self.operations.as_deref().unwrap_or_default()
    }
}

/// The figures of one operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "OperationFigures")]
pub struct Operation {
    /// Which.
    pub operation: operation::Operation,
    /// Calls that did all they were asked for.
    pub ok: u64,
    /// Updates that installed some of their buffers and stopped at one.
    pub partial: u64,
    /// Calls that failed.
    pub failed: u64,
    /// Counts by result, most frequent first: `ok`, `partial` or the errno's name.
    pub results: Vec<ResultCount>,
    /// Partial updates by the errno of the buffer at which they stopped; `unknown` where it did not come as far as its
    /// function.
    pub partial_reasons: Vec<ResultCount>,
    /// How long it took.
    pub duration: Option<Outcome>,
}

impl Operation {
    /// Times it was called.
    pub fn total(&self) -> u64 {
        self.ok.saturating_add(self.partial).saturating_add(self.failed)
    }
}

/// How often an operation had a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResultCount {
    /// `ok`, `partial` or the errno's name; `other` for what is larger than any errno known.
    pub result: String,
    /// How often.
    pub count: u64,
}

/// Durations in nanoseconds, by outcome.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Outcome {
    /// Of those that did all they were asked for.
    pub ok: Distribution,
    /// Of updates that installed some of their buffers and not all.
    pub partial: Distribution,
    /// Of those that failed.
    pub failed: Distribution,
}

impl Outcome {
    /// All of them.
    #[must_use]
    pub fn whole(&self) -> Distribution {
        self.ok.merge(&self.partial).merge(&self.failed)
    }
}

/// Sums over all registers and updates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Split {
    /// From entry to return.
    pub total_ns: u64,
    /// In the pins.
    pub pin_ns: u64,
    /// The rest.
    pub rest_ns: u64,
    /// False where returns were missed: then the pins' share is a lower bound, and the rest an upper one.
    pub complete: bool,
}

/// Page faults (`task_struct.min_flt`, `maj_flt`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Faults {
    /// Without I/O.
    pub minor: u64,
    /// With I/O.
    pub major: u64,
    /// Buffers whose faults are not all among them: the pin of a kernel before 6.5 brings in hugetlb's pages without one. `None`
    /// where such buffers cannot be told from others.
    pub untold_buffers: Option<u64>,
}

impl Faults {
    /// What they lack, in one clause.
    pub fn lack(&self) -> Option<String> {
        match self.untold_buffers {
            Some(0) => None,
            Some(buffers) => Some(format!("those of {} on hugetlb pages unknown", human::plural(buffers, "buffer"))),
            None => Some("those of hugetlb pages unknown".to_owned()),
        }
    }
}

/// What lies behind buffers, by what tells mappings apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Backing {
    /// Its class.
    pub class: Class,
    /// The filesystem's name, for files and special mappings; `overlay (ext4)` where a file is found through another.
    pub filesystem: Option<String>,
    /// `MAP_SHARED`.
    pub shared: bool,
    /// The mapping may be written to.
    pub writable: bool,
    /// Whether the buffers were registered when their calls returned: neither refused nor let go with a call that was.
    pub ok: bool,
    /// Buffers with at least one such VMA.
    pub buffers: u64,
    /// VMAs.
    pub vmas: u64,
    /// Bytes of buffers.
    pub bytes: u64,
}

/// Totals of one process over register, update and clone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Process {
    /// Thread group.
    #[serde(flatten, with = "pid::one")]
    #[schemars(with = "pid::Named")]
    pub pid: Pid,
    /// `task_struct.comm` when it was first seen.
    pub comm: String,
    /// Real user when it was first seen.
    pub uid: u32,
    /// Kernel's id of the cgroup (v2) when it was first seen.
    pub cgroup_id: Option<u64>,
    /// Registrations, updates and clones.
    pub registrations: u64,
    /// Those that failed.
    pub failed: u64,
    /// Updates that installed some of their buffers and not all.
    pub partial: u64,
    /// Calls that were counted and not measured: refused early, or their entry was missed. Where that is all of them, what
    /// follows is `None`.
    pub unmeasured: u64,
    /// Some of those succeeded, so that what follows is a lower bound.
    pub lower_bounds: bool,
    /// Buffers.
    pub buffers: Option<u64>,
    /// Bytes registered.
    pub bytes: Option<u64>,
    /// Bytes asked for and not registered, as in [`Snapshot::refused_bytes`].
    pub refused_bytes: Option<u64>,
    /// VMAs.
    pub vmas: Option<u64>,
    /// Nanoseconds.
    pub duration_ns: Option<u64>,
    /// Nanoseconds in pins.
    pub pin_ns: Option<u64>,
    /// What tells why it costs that; `None` where no buffer is hooked.
    pub habits: Option<Habits>,
}

/// What a process's accepted buffers were like, and what may be better done otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Habits {
    /// Calls refused for want of `RLIMIT_MEMLOCK` (ENOMEM); `None` where the pin is not hooked, as all that is of pins.
    pub enomem: Option<u64>,
    /// Minor faults in its pins.
    pub minor_faults: Option<u64>,
    /// Major faults in its pins.
    pub major_faults: Option<u64>,
    /// Nanoseconds in pins that took at least one fault.
    pub faulting_pin_ns: Option<u64>,
    /// Bytes of the buffers of those pins.
    pub faulting_bytes: Option<u64>,
    /// Buffers whose faults are not all among them: on hugetlb pages, before 6.5.
    pub untold_faults: Option<u64>,
    /// Buffers of 2 MiB and more.
    pub large_buffers: u64,
    /// Their bytes.
    pub large_bytes: u64,
    /// Their bvecs (`io_mapped_ubuf.nr_bvecs`); one for each folio since 6.12, for each page before.
    pub large_bvecs: u64,
    /// Buffers that begin where the one before them in the same call ends.
    pub adjacent_buffers: u64,
    /// Bytes of those.
    pub adjacent_bytes: u64,
    /// Registers with 256 buffers and more.
    pub long_lists: u64,
    /// Calls whose ranges are those of one of the process's last four calls on the same ring.
    pub repeated: u64,
    /// Nanoseconds that those took.
    pub repeated_ns: u64,
    /// Calls whose ranges are those of one of its last four on another ring.
    pub elsewhere: u64,
    /// Nanoseconds that those took.
    pub elsewhere_ns: u64,
    /// Buffers of eight VMAs and more whose pin looked VMAs up; `None` without walk or look-ups.
    pub many_vma_buffers: Option<u64>,
    /// Their VMAs.
    pub many_vmas: Option<u64>,
    /// The look-ups of their pins.
    pub many_vma_lookups: Option<u64>,
    /// Nanoseconds in their pins.
    pub many_vma_pin_ns: Option<u64>,
}

/// Walks by how they ended, and what they cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Walks {
    /// To the end of the range.
    pub complete: u64,
    /// Up to a hole, where the kernel stops as well.
    pub hole: u64,
    /// Ended early since a writer held `mmap_lock`: in no distribution of VMAs.
    pub busy: u64,
    /// Ended early at a limit of the verifier: in no distribution of VMAs.
    pub cut: u64,
    /// Buffers that were not walked: in no distribution of VMAs.
    pub none: u64,
    /// VMAs that were seen.
    pub vmas: u64,
    /// Time of the walks: pinscope's own cost.
    pub nanoseconds: u64,
}

impl Walks {
    /// Walks by the name of their outcome.
    pub fn by_outcome(&self) -> [(&'static str, u64); 5] {
        [("complete", self.complete), ("hole", self.hole), ("busy", self.busy), ("cut", self.cut), ("none", self.none)]
    }
}

/// Calls of `io_sqe_buffers_unregister` that no user made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unregisters {
    /// The kernel's own cleanup of a registration that failed; `None` where its way is not hooked (up to 6.12 without
    /// `--rings`).
    pub internal: Option<u64>,
    /// A ring went away with a table; `None` where its way is not hooked, and in a session with filters: it ends in a
    /// thread of the kernel's, and nothing tells whose it was.
    pub ring_exit: Option<u64>,
}

/// Runs of a program that the kernel skipped (`recursion_misses`): the program was running already on that CPU, in
/// a task that had been preempted, or below.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Skipped {
    /// Name of the program.
    pub program: String,
    /// How many, whichever task they were of.
    pub runs: u64,
}

/// What was lost, by cause. All zero in a session that lost nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Losses {
    /// Registration records that found the ring buffer full; `None` where no records are sent.
    pub registration_records: Option<u64>,
    /// Buffer records that found the ring buffer full; `None` where no records are sent.
    pub buffer_records: Option<u64>,
    /// Entries for which no per-task state could be had; `None` where no entry is hooked.
    pub frames: Option<u64>,
    /// Registrations not counted under a process since the map was full; `None` where none are counted so.
    pub processes: Option<u64>,
    /// Backings not counted since the map was full; `None` where there is no walk.
    pub backings: Option<u64>,
    /// Entries that found the task's last registration still open; `None` where no entry is hooked.
    pub reentries: Option<u64>,
    /// Processes of the traced command that could not be followed; `None` where no command is traced.
    pub descendants: Option<u64>,
    /// Buffers with more files or backings than are told apart; `None` where there is no walk.
    pub short_records: Option<u64>,
    /// Operations not counted under a ring since the map was full; `None` where none are.
    pub rings: Option<u64>,
    /// Buffers not judged since the map was full; `None` where there is no walk.
    pub judgements: Option<u64>,
    /// Files of buffers that span several that could not be named or kept; `None` where they are not.
    pub files: Option<u64>,
    /// Tables of buffers that are not followed since the map was full; `None` where none are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<u64>,
    /// Calls not seen while they were under way, since there was no place for them.
    pub calls: Option<u64>,
}

impl Losses {
    /// The losses that can happen in this session: the name used in metrics, what it means, how many.
    pub fn by_cause(&self) -> Vec<(&'static str, &'static str, u64)> {
        let causes = [
            ("registration_records", "registration records: the ring buffer was full", self.registration_records),
            ("buffer_records", "buffer records: the ring buffer was full", self.buffer_records),
            ("frames", "registrations: no memory for per-task state", self.frames),
            ("processes", "registrations without a process: the map was full", self.processes),
            ("backings", "backings: the map was full", self.backings),
            ("reentries", "registrations: entered while one was still open", self.reentries),
            (
                "descendants",
                "calls of tasks of more than 128 generations, of which it is not known whose they are",
                self.descendants,
            ),
            (
                "short_records",
                "buffers with more files or backings, and registrations with more VMAs, than are told apart",
                self.short_records,
            ),
            ("rings", "operations not counted under their ring: the map was full", self.rings),
            ("judgements", "buffers not judged by policy: the map was full", self.judgements),
            ("files", "files of a shared buffer: unnamed, or the map was full", self.files),
            ("tables", "tables of buffers not followed: the map was full", self.tables),
            ("calls", "calls not seen while they were under way: there was no place", self.calls),
        ];
        causes.into_iter().filter_map(|(name, meaning, count)| Some((name, meaning, count?))).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests;
