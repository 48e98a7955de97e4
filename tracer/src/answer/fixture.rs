//! Snapshots made by hand, for tests.

use tracer_ebpf::{
    backing::Class,
    installation::Installation,
    policy::{Policy, Traits},
    workload::{Slot, WorkloadTotals},
};

use super::{Context, Hook};
use crate::{
    aggregate::{
        ByRequests, CostCell, Distribution, Habits, Installations, Judged, Judgements, Kinds, Largest, Process, Ring,
        Rings, SharedBufferFile, Snapshot, fold,
        registered::Share,
        tests::a_sample,
        workloads::{Folded, Row, WorkloadFigures, Workloads},
    },
    decode::{Capabilities, workload::Workload},
};

pub(crate) const SECOND: u64 = 1_000_000_000;

/// A session on 6.12 with fentry.
pub(crate) fn context() -> Context {
    let hook = |role, function: &str| Hook { role, function: function.to_owned() };
    Context {
        origin: super::Origin { version: "0.1.0".to_owned(), ..super::Origin::new("6.12.107-cloud-amd64", "fentry") },
        hooks: vec![
            hook("register", "io_sqe_buffers_register"),
            hook("buffer", "io_sqe_buffer_register"),
            hook("pin", "io_pin_pages"),
            hook("look-up", "gup_vma_lookup"),
            hook("ledger", "io_uring_register"),
            hook("ring", "io_uring_create"),
        ],
        coalesces: true,
        clones: true,
    }
}

pub(crate) fn values(values: &[u64]) -> Distribution {
    let mut distribution = Distribution::default();
    for value in values {
        distribution.add(*value);
    }
    distribution
}

/// A ring that was made under pinscope's eyes.
pub(crate) fn ring(pid: u32, comm: &str, fd: i32, registers: u64, after_requests: u64, span_ns: u64) -> Ring {
    Ring {
        pid: pid.into(),
        comm: comm.to_owned(),
        fd: Some(fd),
        flags: Some(0),
        registers,
        after_requests: Some(after_requests),
        first_age_ns: Some(40_000),
        last_age_ns: Some(40_000 + span_ns),
        gaps: registers.saturating_sub(1),
        span_ns,
        fills: Some(0),
        fills_after_requests: Some(0),
        switches: Some(after_requests.min(registers.saturating_sub(1))),
        switch_gaps: Some(after_requests.min(registers.saturating_sub(1))),
        switch_span_ns: Some(span_ns),
        from_ns: SECOND,
        last_ns: SECOND + span_ns,
        shortest_gap_ns: (registers > 1).then(|| span_ns / (registers - 1)),
        ..Ring::default()
    }
}

pub(crate) fn rings(list: Vec<Ring>) -> Rings {
    let mut ordinal = Distribution::default();
    for ring in &list {
        (1..=ring.installations()).for_each(|number| ordinal.add(number));
    }
    Rings {
        age: values(&list.iter().filter_map(|ring| ring.first_age_ns).collect::<Vec<_>>()),
        gap: values(&list.iter().filter_map(|ring| ring.shortest_gap_ns).collect::<Vec<_>>()),
        ordinal,
        unlisted: Some(0),
        list: Some(list),
    }
}

/// What goes with those rings.
pub(crate) fn installations(rings: &Rings) -> Installations {
    let after_requests = rings.list.iter().flatten().filter_map(|ring| ring.after_requests).sum();
    let all = ByRequests { before_requests: rings.ordinal.count() - after_requests, after_requests };
    let mut kinds = Kinds([Some(ByRequests::default()); Installation::COUNT]);
    kinds.0[Installation::Table as usize] = Some(all);
    Installations { all, kinds, emptying_updates: ByRequests::default() }
}

/// What a shared, writable mapping of a file has.
pub(crate) fn shared_file() -> Traits {
    Traits::FIRST_FOREIGN.with(Traits::FOREIGN).with(Traits::FILE).with(Traits::TRACKED)
}

/// What a private one has.
pub(crate) fn private_file() -> Traits {
    Traits::FIRST_FOREIGN.with(Traits::FOREIGN).with(Traits::FILE)
}

pub(crate) fn judged(traits: Traits, errno: i32, buffers: u64) -> Judged {
    Judged {
        traits,
        errno,
        pid: Some(42.into()),
        comm: "fio".to_owned(),
        filesystem: Some("ext4".to_owned()),
        class: Some(Class::File),
        buffers,
        bytes: buffers * 4096,
    }
}

/// A hundred clean buffers and `others`.
pub(crate) fn judgements(policy: Policy, others: Vec<Judged>) -> Judgements {
    Judgements {
        clean: 100,
        rolled_back: 0,
        others,
        unjudged: 0,
        kernel_policy: Some(policy),
        kernel_policy_why: "told by its functions".to_owned(),
    }
}

pub(crate) fn cell(vmas: u64, pages: u64, buffers: u64, pin_each: u64, walk_each: u64) -> CostCell {
    CostCell {
        vmas_from: vmas,
        vmas_to: vmas * 2 - 1,
        pages_from: pages,
        pages_to: pages * 2 - 1,
        buffers,
        vmas: buffers * vmas,
        bytes: buffers * pages * 4096,
        pin_ns: buffers * pin_each,
        passes: buffers,
        pass_vmas: buffers * vmas,
        pass_ns: buffers * walk_each,
        faults: Some(0),
        slow: Some(buffers / 4),
        slow_ns: Some(buffers / 4 * pin_each),
    }
}

/// A process of which all is known, and nothing stands out.
pub(crate) fn habits() -> Habits {
    let none = Some(0);
    Habits {
        enomem: none,
        minor_faults: none,
        major_faults: none,
        faulting_pin_ns: none,
        faulting_bytes: none,
        untold_faults: none,
        many_vma_buffers: none,
        many_vmas: none,
        many_vma_lookups: none,
        many_vma_pin_ns: none,
        ..Habits::default()
    }
}

pub(crate) fn process(pid: u32, comm: &str, habits: Habits) -> Process {
    Process {
        pid: pid.into(),
        comm: comm.to_owned(),
        registrations: 100,
        failed: 0,
        buffers: Some(400),
        bytes: Some(400 << 20),
        vmas: Some(400),
        duration_ns: Some(10_000_000),
        pin_ns: Some(8_000_000),
        habits: Some(habits),
        ..Process::default()
    }
}

/// A service and a container with series of their own.
pub(crate) fn workloads() -> Workloads {
    let row = |workload, calls: u64| {
        let mut totals = WorkloadTotals::default();
        totals.0[Slot::Succeeded as usize] = calls;
        totals.0[Slot::Bytes as usize] = calls * 4096;
        totals.0[Slot::Refused as usize + Policy::Before65 as usize] = 1;
        totals.0[Slot::Vmas as usize] = calls - 1;
        totals.0[Slot::VmasSum as usize - 1] = 1;
        totals.0[Slot::VmasSum as usize] = calls - 1 + 2000;
        totals.0[Slot::Durations as usize + 2] = calls;
        totals.0[Slot::DurationSum as usize] = calls * 10_000;
        let registered = Some(Share { buffers: calls, bytes: calls * 4096, pinned: 4096 });
        Row { workload, totals, registered }
    };
    let id = "0123456789abcdef".repeat(4);
    Workloads {
        rows: vec![
            row(Workload::at(&format!("/system.slice/docker-{id}.scope")), 5),
            row(Workload::at("/system.slice/fio.service"), 3),
            row(Workload::other(), 1),
            row(Workload::ended(), 2),
        ],
        folded: Folded { cap: 1, gone: 2, unnamed: 0 },
        unattributed: 0,
        folders_cut: true,
        told: WorkloadFigures { durations: true, buffers: true, pins: true, walk: true, requests: true },
    }
}

/// A session in which every figure is known: a server at run time and a fio at set-up.
pub(crate) fn a_snapshot() -> Snapshot {
    let shared = SharedBufferFile {
        pid: 42.into(),
        comm: "fio".to_owned(),
        name: "memfd:pool".to_owned(),
        filesystem: Some("tmpfs".to_owned()),
        inode: 17,
        buffers: 1,
    };
    let largest = |vmas, buffers| Largest {
        vmas,
        bytes: 1 << 20,
        buffers,
        nanoseconds: Some(400_000),
        pid: 7.into(),
        comm: "server".to_owned(),
    };
    // At run time it goes on past the second that counts as set-up.
    let busy = Ring { last_age_ns: Some(SECOND + 40_000), ..ring(7, "server", 5, 313, 312, SECOND) };
    let rings = rings(vec![busy, ring(7, "server", 6, 1, 0, 0), ring(42, "fio", 3, 1, 0, 0)]);
    Snapshot {
        installations: Some(installations(&rings)),
        rings: Some(rings),
        costs: Some(vec![cell(1, 1, 30, 900, 400), cell(1, 64, 8, 41_000, 500), cell(16, 16, 2, 9_000, 11_000)]),
        largest_registration: Some(largest(71, 4)),
        largest_buffer: Some(largest(18, 1)),
        judgements: Some(judgements(Policy::Since65, vec![judged(shared_file(), 14, 2), judged(private_file(), 0, 1)])),
        multi_file_buffers: Some(1),
        multi_vm_file_buffers: Some(1),
        shared_buffer_files: Some(vec![shared]),
        workloads: Some(workloads()),
        ..fold(&a_sample(), &Capabilities::all())
    }
}
