//! The list of metrics.

use super::{Bounds, Metric, Sample, Scrape, Type, detail, otlp, own, questions, workloads};
use crate::{
    aggregate::{Backing, Distribution, OperationBooks, PartBooks, Walks},
    sink::otlp::Counts,
};

/// Every metric that pinscope serves.
pub const METRICS: &[Metric] = &[
    Metric {
        name: "pinscope_registrations_total",
        kind: Type::Counter,
        labels: &["operation", "result"],
        help: "Calls that concern a ring's registered buffers, by operation and result (ok, or the errno's name).",
        source: "tracepoint io_uring_register; map RESULTS",
        samples: registrations,
    },
    Metric {
        name: "pinscope_registration_duration_seconds",
        kind: Type::Histogram(Bounds::Time),
        labels: &["operation", "outcome"],
        help: "Time from entry to return, pinscope's own walks left out. The sum over register and update less that of pinscope_pin_duration_seconds is the rest, outside of the pins.",
        source: "entry and return of the operation's function",
        samples: durations,
    },
    Metric {
        name: "pinscope_pin_duration_seconds",
        kind: Type::Histogram(Bounds::Time),
        labels: &[],
        help: "Time in the pins (GUP) of a register or an update, all its buffers together.",
        source: "entry and return of the pin's function",
        samples: |scrape| distribution(scrape.snapshot.pin.as_ref()),
    },
    Metric {
        name: "pinscope_registration_vmas",
        kind: Type::Histogram(Bounds::Vmas),
        labels: &[],
        help: "VMAs touched by a registration whose buffers were all walked whole.",
        source: "walk",
        samples: |scrape| distribution(scrape.snapshot.registration_vmas.as_ref()),
    },
    Metric {
        name: "pinscope_buffer_vmas",
        kind: Type::Histogram(Bounds::Vmas),
        labels: &[],
        help: "VMAs touched by a buffer that was walked whole.",
        source: "walk",
        samples: |scrape| distribution(scrape.snapshot.buffer_vmas.as_ref()),
    },
    Metric {
        name: "pinscope_registration_buffers",
        kind: Type::Histogram(Bounds::Buffers),
        labels: &[],
        help: "Buffers of a register or an update that reached the kernel's per-buffer function, or in the service its pin.",
        source: "entry of the per-buffer function",
        samples: |scrape| distribution(scrape.snapshot.registration_buffers.as_ref()),
    },
    Metric {
        name: "pinscope_registration_bytes",
        kind: Type::Histogram(Bounds::Bytes),
        labels: &[],
        help: "Bytes of a register or an update: the sum of its buffers' lengths.",
        source: "entry of the per-buffer function",
        samples: |scrape| distribution(scrape.snapshot.registration_bytes.as_ref()),
    },
    Metric {
        name: "pinscope_backing_buffers_total",
        kind: Type::Counter,
        labels: BACKING,
        help: "Buffers with at least one VMA of the backing.",
        source: "walk; map BACKINGS",
        samples: |scrape| backings(scrape, |backing| backing.buffers),
    },
    Metric {
        name: "pinscope_backing_vmas_total",
        kind: Type::Counter,
        labels: BACKING,
        help: "VMAs of the backing that buffers touched.",
        source: "walk; map BACKINGS",
        samples: |scrape| backings(scrape, |backing| backing.vmas),
    },
    Metric {
        name: "pinscope_backing_bytes_total",
        kind: Type::Counter,
        labels: BACKING,
        help: "Bytes of buffers that lie on the backing.",
        source: "walk; map BACKINGS",
        samples: |scrape| backings(scrape, |backing| backing.bytes),
    },
    Metric {
        name: "pinscope_multi_file_buffers_total",
        kind: Type::Counter,
        labels: &[],
        help: "Buffers that span more than one file.",
        source: "walk",
        samples: |scrape| number(scrape.snapshot.multi_file_buffers),
    },
    Metric {
        name: "pinscope_page_faults_total",
        kind: Type::Counter,
        labels: &["kind"],
        help: "Page faults taken in the pins: minor, or major (with I/O).",
        source: "task_struct.min_flt and maj_flt over the pin",
        samples: faults,
    },
    Metric {
        name: "pinscope_vma_lookups_total",
        kind: Type::Counter,
        labels: &[],
        help: "VMA look-ups that the kernel made in the pins. Absent unless the look-up hook was asked for.",
        source: "look-up hook",
        samples: |scrape| number(scrape.snapshot.lookups),
    },
    Metric {
        name: "pinscope_other_unregisters_total",
        kind: Type::Counter,
        labels: &["by"],
        help: "Buffer tables let go by others than the user: the kernel's own cleanup, or the ring's end (since 6.13; before, a ring ends without that function).",
        source: "entry of io_sqe_buffers_unregister",
        samples: unregisters,
    },
    Metric {
        name: "pinscope_walks_total",
        kind: Type::Counter,
        labels: &["outcome"],
        help: "pinscope's own walks over a buffer's VMAs: complete, up to a hole, ended early (busy: a writer held mmap_lock; cut: a limit of the verifier), or none.",
        source: "walk",
        samples: walks,
    },
    Metric {
        name: "pinscope_walk_vmas_total",
        kind: Type::Counter,
        labels: &[],
        help: "VMAs that pinscope's own walks saw.",
        source: "walk",
        samples: |scrape| number(scrape.snapshot.walks.as_ref().map(|walks| walks.vmas)),
    },
    Metric {
        name: "pinscope_walk_seconds_total",
        kind: Type::Counter,
        labels: &[],
        help: "Time that pinscope's own walks took; it is in no other time.",
        source: "walk",
        samples: walk_seconds,
    },
    Metric {
        name: "pinscope_question_state",
        kind: Type::Gauge,
        labels: &["question", "state"],
        help: "1 for the state that a question (Q1 to Q7 of `pinscope report`) is in: answered, degraded or unanswerable; 0 for the others.",
        source: "the answers",
        samples: questions::states,
    },
    Metric {
        name: "pinscope_ring_age_seconds",
        kind: Type::Histogram(Bounds::Age),
        labels: &[],
        help: "Age of the ring at each installation of buffers (register, update or clone that succeeded); of rings whose making was seen.",
        source: "tracepoint io_uring_create; map of rings",
        samples: |scrape| questions::rings(scrape, |rings| &rings.age),
    },
    Metric {
        name: "pinscope_ring_gap_seconds",
        kind: Type::Histogram(Bounds::Age),
        labels: &[],
        help: "Time between an installation of buffers and the one before on the same ring.",
        source: "map of rings",
        samples: |scrape| questions::rings(scrape, |rings| &rings.gap),
    },
    Metric {
        name: "pinscope_ring_installation_ordinal",
        kind: Type::Histogram(Bounds::Ordinal),
        labels: &[],
        help: "Which installation of its ring each was, from 1: the count in the bucket of 1 is the number of rings.",
        source: "map of rings",
        samples: |scrape| questions::rings(scrape, |rings| &rings.ordinal),
    },
    Metric {
        name: "pinscope_installations_total",
        kind: Type::Counter,
        labels: &["requests"],
        help: "Installations of buffers before and after the ring had been given a request.",
        source: "io_ring_ctx.cached_sq_head and cached_cq_tail",
        samples: questions::installations,
    },
    Metric {
        name: "pinscope_judged_buffers_total",
        kind: Type::Counter,
        labels: &["judged"],
        help: "Buffers held against the kernels' rules: clean (no rule looks at what they have, and the kernel accepted), other, or unjudged (not walked to the end, or the map was full).",
        source: "walk",
        samples: questions::judged,
    },
    Metric {
        name: "pinscope_policy_refusals_total",
        kind: Type::Counter,
        labels: POLICY,
        help: "Buffers that each kernel's rule (before_6_5, single_source, as_proposed, since_6_5) would refuse, and what this kernel did with them: ok, failed.",
        source: "walk; map of judgements",
        samples: |scrape| questions::refusals(scrape, |judged| judged.buffers),
    },
    Metric {
        name: "pinscope_policy_refused_bytes_total",
        kind: Type::Counter,
        labels: POLICY,
        help: "Bytes of the buffers that each kernel's rule would refuse, and what this kernel did with them.",
        source: "walk; map of judgements",
        samples: |scrape| questions::refusals(scrape, |judged| judged.bytes),
    },
    Metric {
        name: "pinscope_policy_answers_total",
        kind: Type::Counter,
        labels: &["answer"],
        help: "This kernel's answers against its own rule: agreed, accepted_though_refused, refused_though_accepted. Absent where its rule cannot be told.",
        source: "walk; map of judgements",
        samples: questions::agreement,
    },
    Metric {
        name: "pinscope_entries_total",
        kind: Type::Counter,
        labels: HOOK,
        help: "Times that the hook at a function's entry ran.",
        source: "entry hooks",
        samples: |scrape| hooks(scrape, |books| books.entries, |part| part.entries),
    },
    Metric {
        name: "pinscope_returns_total",
        kind: Type::Counter,
        labels: HOOK,
        help: "Times that the hook at a function's return ran.",
        source: "return hooks",
        samples: |scrape| hooks(scrape, |books| books.returns, |part| part.returns),
    },
    Metric {
        name: "pinscope_missed_returns_total",
        kind: Type::Counter,
        labels: HOOK,
        help: "Returns that were not seen (a kretprobe ran out of instances). entries = returns + missed returns + in flight.",
        source: "tracepoint io_uring_register; entry hooks",
        samples: |scrape| hooks(scrape, |books| books.missed_returns, |part| part.missed_returns),
    },
    Metric {
        name: "pinscope_in_flight",
        kind: Type::Gauge,
        labels: HOOK,
        help: "Entered and not ended. A sample is read while the counters move, so it may be off by what is under way.",
        source: "the books",
        samples: in_flight,
    },
    Metric {
        name: "pinscope_ledger_calls_total",
        kind: Type::Counter,
        labels: &["operation"],
        help: "What the kernel's own tracepoint saw: an independent count of pinscope_registrations_total.",
        source: "tracepoint io_uring_register",
        samples: |scrape| operations(scrape, |books| books.ledger),
    },
    Metric {
        name: "pinscope_refused_early_total",
        kind: Type::Counter,
        labels: &["operation"],
        help: "Calls that failed before the operation's function was entered, or whose entry was skipped.",
        source: "tracepoint io_uring_register",
        samples: |scrape| operations(scrape, |books| books.refused_early),
    },
    Metric {
        name: "pinscope_missed_entries_total",
        kind: Type::Counter,
        labels: HOOK,
        help: "Calls that succeeded and whose entry was not seen: counted, not measured. Buffers and pins are in no figure.",
        source: "tracepoint io_uring_register; return hooks",
        samples: |scrape| hooks(scrape, |books| books.missed_entries, |part| part.missed_entries),
    },
    Metric {
        name: "pinscope_skipped_runs_total",
        kind: Type::Counter,
        labels: &["program"],
        help: "Runs that the kernel skipped since the program was running already on that CPU, in a preempted task.",
        source: "the kernel's count for each program (since 5.12)",
        samples: skipped,
    },
    Metric {
        name: "pinscope_lost_total",
        kind: Type::Counter,
        labels: &["what"],
        help: "What was lost, by cause. Only the causes that can happen as pinscope runs.",
        source: "map TOTALS",
        samples: losses,
    },
    Metric {
        name: "pinscope_coverage_ratio",
        kind: Type::Gauge,
        labels: &[],
        help: "Share of the calls that the tracepoint saw and pinscope measured. Absent before the first.",
        source: "the books",
        samples: |scrape| ratio(scrape.snapshot.books.coverage),
    },
    Metric {
        name: "pinscope_books_balanced",
        kind: Type::Gauge,
        labels: &[],
        help: "1 where all counts add up, else 0. Absent where nothing is counted. It may be 0 for a moment while registrations are under way.",
        source: "the books",
        samples: |scrape| if_measured(scrape, || flag(&[], scrape.snapshot.books.balanced)),
    },
    Metric {
        name: "pinscope_degraded_reasons",
        kind: Type::Gauge,
        labels: &[],
        help: "How many figures cannot be had on this kernel or in this session. `pinscope doctor` says which and why.",
        source: "probe plan",
        samples: |scrape| vec![Sample::count(&[], scrape.snapshot.degraded.len() as u64)],
    },
    Metric {
        name: "pinscope_degraded_reason",
        kind: Type::Gauge,
        labels: &["figure", "reason"],
        help: "1 for each figure that cannot be had on this kernel or in this session, and why.",
        source: "probe plan",
        samples: own::degraded,
    },
    Metric {
        name: "pinscope_health",
        kind: Type::Gauge,
        labels: &["status"],
        help: "1 for the state that the probes are in: healthy (all that was asked for is measured), degraded or failed; 0 for the others.",
        source: "probe plan",
        samples: own::health,
    },
    Metric {
        name: "pinscope_attached_seconds",
        kind: Type::Gauge,
        labels: &[],
        help: "Time since the probes were attached. Absent where none is.",
        source: "clock",
        samples: |scrape| if_measured(scrape, || Sample::number(&[], scrape.snapshot.elapsed_ns as f64 / 1e9)),
    },
    Metric {
        name: "pinscope_probe_attached",
        kind: Type::Gauge,
        labels: &["program", "function", "kind"],
        help: "1 where the probe is attached, 0 where it is planned and is not.",
        source: "probe plan",
        samples: probes,
    },
    Metric {
        name: "pinscope_info",
        kind: Type::Gauge,
        labels: &["version", "kernel", "mode"],
        help: "Always 1; what runs where, and how its probes are attached.",
        source: "uname(2), probe plan",
        samples: info,
    },
    Metric {
        name: "pinscope_build_info",
        kind: Type::Gauge,
        labels: &["version", "revision", "toolchain"],
        help: "Always 1; the version, the commit that it was built from, and what its eBPF programs were built with.",
        source: "build",
        samples: own::build,
    },
    Metric {
        name: "pinscope_registered_buffers",
        kind: Type::Gauge,
        labels: &[],
        help: "Buffers that are registered now, by registers that pinscope saw. Absent without --rings, where the end of a table is not seen (5.10), and once one may have been missed.",
        source: "map of tables; entry of (__)io_sqe_buffers_unregister",
        samples: |scrape| own::registered(scrape, |registered| registered.buffers),
    },
    Metric {
        name: "pinscope_registered_bytes",
        kind: Type::Gauge,
        labels: &[],
        help: "Bytes of the buffers that are registered now. Absent as pinscope_registered_buffers is.",
        source: "as pinscope_registered_buffers",
        samples: |scrape| own::registered(scrape, |registered| registered.bytes),
    },
    Metric {
        name: "pinscope_registered_unknown_rings",
        kind: Type::Gauge,
        labels: &[],
        help: "Rings with a table of which it is not known what is in it, until it is let go: changed by an update, made by a clone, or its register was not wholly seen. They are in neither pinscope_registered_buffers nor pinscope_registered_bytes. Absent as those are.",
        source: "as pinscope_registered_buffers",
        samples: |scrape| own::registered(scrape, |registered| registered.unknown_rings),
    },
    Metric {
        name: "pinscope_program_runs_total",
        kind: Type::Counter,
        labels: &["program"],
        help: "Runs of each of pinscope's eBPF programs. Absent where the kernel keeps no statistics of programs (--stats, or kernel.bpf_stats_enabled=1).",
        source: "bpf_prog_info.run_cnt",
        samples: |scrape| own::runs(scrape, |runs| runs.count as f64),
    },
    Metric {
        name: "pinscope_program_run_seconds_total",
        kind: Type::Counter,
        labels: &["program"],
        help: "Time that each of pinscope's eBPF programs took. Absent where the kernel keeps no statistics of programs.",
        source: "bpf_prog_info.run_time_ns",
        samples: |scrape| own::runs(scrape, |runs| runs.nanoseconds as f64 / 1e9),
    },
    Metric {
        name: "process_cpu_seconds_total",
        kind: Type::Counter,
        labels: &[],
        help: "CPU time of pinscope's own process, in user and kernel mode.",
        source: OWN,
        samples: |scrape| own::process(scrape, |own| Some(own.cpu_seconds)),
    },
    Metric {
        name: "process_resident_memory_bytes",
        kind: Type::Gauge,
        labels: &[],
        help: "Resident memory of pinscope's own process.",
        source: OWN,
        samples: |scrape| own::process(scrape, |own| Some(own.resident_bytes as f64)),
    },
    Metric {
        name: "process_virtual_memory_bytes",
        kind: Type::Gauge,
        labels: &[],
        help: "Address space of pinscope's own process.",
        source: OWN,
        samples: |scrape| own::process(scrape, |own| Some(own.virtual_bytes as f64)),
    },
    Metric {
        name: "process_open_fds",
        kind: Type::Gauge,
        labels: &[],
        help: "Open file descriptors of pinscope's own process.",
        source: OWN,
        samples: |scrape| own::process(scrape, |own| own.open_fds.map(|count| count as f64)),
    },
    Metric {
        name: "process_max_fds",
        kind: Type::Gauge,
        labels: &[],
        help: "The most file descriptors that pinscope's own process may open.",
        source: OWN,
        samples: |scrape| own::process(scrape, |own| own.max_fds.map(|count| count as f64)),
    },
    Metric {
        name: "process_threads",
        kind: Type::Gauge,
        labels: &[],
        help: "Threads of pinscope's own process.",
        source: OWN,
        samples: |scrape| own::process(scrape, |own| Some(own.threads as f64)),
    },
    Metric {
        name: "process_start_time_seconds",
        kind: Type::Gauge,
        labels: &[],
        help: "When pinscope's own process began, in seconds since 1970.",
        source: OWN,
        samples: |scrape| own::process(scrape, |own| Some(own.started_seconds)),
    },
    Metric {
        name: "pinscope_mmap_lock_wait_seconds",
        kind: Type::Histogram(Bounds::Time),
        labels: &["side"],
        help: "Waits of a register or an update for its process's mmap_lock, to read or to write, the lock being free or not. Absent without --locks.",
        source: "raw tracepoints mmap_lock_start_locking and mmap_lock_acquire_returned; map DETAILS",
        samples: detail::waits,
    },
    Metric {
        name: "pinscope_mmap_lock_registrations_total",
        kind: Type::Counter,
        labels: &["lock"],
        help: "Registers and updates while the lock is watched: all, those that took it to read or to write, those that waited more than 1 µs. Absent without --locks.",
        source: "as pinscope_mmap_lock_wait_seconds",
        samples: detail::registrations,
    },
    Metric {
        name: "pinscope_phase_seconds_total",
        kind: Type::Counter,
        labels: &["phase"],
        help: "Time of registers and updates by part, which do not overlap. Absent without --phases; a part whose probes are missing is absent and in the other of its half.",
        source: "entry and return of handle_mm_fault, the look-up's function and (__)io_account_mem; map DETAILS",
        samples: detail::phases,
    },
    Metric {
        name: "pinscope_workload_info",
        kind: Type::Gauge,
        labels: &["workload", "kind", "unit", "slice", "pod_uid", "container_id", "runtime"],
        help: "Always 1; what a workload is: a systemd unit or slice, a container, a pod, another cgroup, other for all that found no series of their own, or ended for all that are gone and whose series ended. What does not apply is empty.",
        source: WORKLOADS,
        samples: workloads::info,
    },
    Metric {
        name: "pinscope_workload_registrations_total",
        kind: Type::Counter,
        labels: &["workload", "outcome"],
        help: "Registers, updates and clones of the workload's tasks. What a workload that is gone had counted is added to ended in one step: leave ended out of rates, not out of sums since the start.",
        source: WORKLOADS,
        samples: workloads::registrations,
    },
    Metric {
        name: "pinscope_workload_registration_duration_seconds",
        kind: Type::Histogram(Bounds::WorkloadTime),
        labels: WORKLOAD,
        help: "Time from entry to return of the workload's registers, updates and clones, pinscope's own walks left out.",
        source: WORKLOADS,
        samples: workloads::durations,
    },
    Metric {
        name: "pinscope_workload_registration_vmas",
        kind: Type::Histogram(Bounds::WorkloadVmas),
        labels: WORKLOAD,
        help: "VMAs touched by the workload's registrations whose buffers were all walked whole.",
        source: WORKLOADS,
        samples: workloads::vmas,
    },
    Metric {
        name: "pinscope_workload_pin_seconds_total",
        kind: Type::Counter,
        labels: WORKLOAD,
        help: "Time in the pins of the workload's registers and updates.",
        source: WORKLOADS,
        samples: workloads::pin_seconds,
    },
    Metric {
        name: "pinscope_workload_buffers_total",
        kind: Type::Counter,
        labels: WORKLOAD,
        help: "Buffers of the workload that reached the kernel's per-buffer function, or its pin.",
        source: WORKLOADS,
        samples: workloads::buffers,
    },
    Metric {
        name: "pinscope_workload_bytes_total",
        kind: Type::Counter,
        labels: WORKLOAD,
        help: "Bytes of those buffers.",
        source: WORKLOADS,
        samples: workloads::bytes,
    },
    Metric {
        name: "pinscope_workload_page_faults_total",
        kind: Type::Counter,
        labels: &["workload", "kind"],
        help: "Page faults taken in the workload's pins: minor, or major (with I/O).",
        source: WORKLOADS,
        samples: workloads::faults,
    },
    Metric {
        name: "pinscope_workload_installations_total",
        kind: Type::Counter,
        labels: &["workload", "requests"],
        help: "The workload's installations of buffers before and after the ring had been given a request.",
        source: WORKLOADS,
        samples: workloads::installations,
    },
    Metric {
        name: "pinscope_workload_policy_refusals_total",
        kind: Type::Counter,
        labels: &["workload", "policy"],
        help: "Buffers of the workload that each kernel's rule would refuse, and that this kernel accepted.",
        source: WORKLOADS,
        samples: workloads::refusals,
    },
    Metric {
        name: "pinscope_workloads",
        kind: Type::Gauge,
        labels: &[],
        help: "Workloads with series of their own: other and ended are not among them.",
        source: WORKLOADS,
        samples: workloads::own,
    },
    Metric {
        name: "pinscope_workloads_folded_total",
        kind: Type::Counter,
        labels: &["cause"],
        help: "What has no series of its own: under other, cgroups that found all series taken (cap), or whose path was not to be had (unnamed); under ended, workloads whose series ended, for they had been gone for a while (gone).",
        source: WORKLOADS,
        samples: workloads::folded,
    },
    Metric {
        name: "pinscope_workload_unattributed_calls_total",
        kind: Type::Counter,
        labels: &[],
        help: "Calls under the workload other since the map had no room for their cgroup, or it could not be told. Before the first, every workload has its own counts or is among the folded.",
        source: WORKLOADS,
        samples: workloads::unattributed,
    },
    Metric {
        name: "pinscope_otlp_exports_total",
        kind: Type::Counter,
        labels: &["outcome"],
        help: "Exports by OTLP: accepted, partial (the receiver left points out), refused for good, abandoned (not taken before the next was due, or the end), or unread (the figures could not be read). Absent without --otlp-endpoint.",
        source: "the exporter",
        samples: otlp::exports,
    },
    Metric {
        name: "pinscope_otlp_retries_total",
        kind: Type::Counter,
        labels: &[],
        help: "Requests of exports that were sent again, the receiver being away or busy. Absent without --otlp-endpoint.",
        source: "the exporter",
        samples: |scrape| otlp::count(scrape, Counts::retries),
    },
    Metric {
        name: "pinscope_otlp_rejected_points_total",
        kind: Type::Counter,
        labels: &[],
        help: "Data points that the receiver left out of exports that it took otherwise. Absent without --otlp-endpoint.",
        source: "the receiver's answers",
        samples: |scrape| otlp::count(scrape, Counts::rejected_points),
    },
];

/// The process' own folder.
const OWN: &str = "/proc/self";
/// Where all figures by workload come from.
const WORKLOADS: &str = "map WORKLOADS; path and presence of the cgroup";
const WORKLOAD: &[&str] = &["workload"];
const BACKING: &[&str] = &["class", "filesystem", "shared", "writable", "outcome"];
const POLICY: &[&str] = &["policy", "errno", "class", "filesystem", "outcome"];
/// An operation, or `buffer` or `pin`.
const HOOK: &[&str] = &["hook"];

pub(super) fn outcome(ok: bool) -> &'static str {
    if ok { "ok" } else { "failed" }
}

fn flag<'a>(labels: &[&'a str], value: bool) -> Sample<'a> {
    Sample::count(labels, u64::from(value))
}

fn number<'a>(value: Option<u64>) -> Vec<Sample<'a>> {
    value.map(|value| Sample::count(&[], value)).into_iter().collect()
}

fn ratio<'a>(value: Option<f64>) -> Vec<Sample<'a>> {
    value.map(|value| Sample::number(&[], value)).into_iter().collect()
}

/// One sample where any probe counts calls.
fn if_measured<'a>(scrape: &Scrape<'_>, sample: impl FnOnce() -> Sample<'a>) -> Vec<Sample<'a>> {
    let operations = &scrape.snapshot.books.operations;
    let measured = operations.iter().any(OperationBooks::is_counted);
    measured.then(sample).into_iter().collect()
}

fn distribution(distribution: Option<&Distribution>) -> Vec<Sample<'_>> {
    distribution.map(|distribution| Sample::distribution(&[], distribution)).into_iter().collect()
}

/// Success is there from the start, so that the first rate over it is right.
fn registrations<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let snapshot = scrape.snapshot;
    let counted = snapshot.operations.iter().zip(&snapshot.books.operations);
    let counted = counted.filter(|(_, books)| books.is_counted());
    counted
        .flat_map(|(operation, _)| {
            let failed = operation.results.iter().filter(|result| result.result != "ok");
            let failed = failed.map(|result| Sample::count(&[operation.operation, &result.result], result.count));
            [Sample::count(&[operation.operation, "ok"], operation.ok)].into_iter().chain(failed)
        })
        .collect()
}

fn durations<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let operations = scrape.snapshot.operations.iter();
    let timed = operations.filter_map(|operation| Some((operation.operation, operation.duration.as_ref()?)));
    timed
        .flat_map(|(name, duration)| {
            [
                Sample::distribution(&[name, outcome(true)], &duration.ok),
                Sample::distribution(&[name, outcome(false)], &duration.failed),
            ]
        })
        .collect()
}

fn backings<'a>(scrape: &Scrape<'a>, of: fn(&Backing) -> u64) -> Vec<Sample<'a>> {
    let backings = scrape.snapshot.backings.iter().flatten();
    backings
        .map(|backing| {
            let labels = [
                backing.class,
                backing.filesystem.as_deref().unwrap_or_default(),
                if backing.shared { "true" } else { "false" },
                if backing.writable { "true" } else { "false" },
                outcome(backing.ok),
            ];
            Sample::count(&labels, of(backing))
        })
        .collect()
}

fn faults<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let faults = scrape.snapshot.faults.iter();
    faults
        .flat_map(|faults| [Sample::count(&["minor"], faults.minor), Sample::count(&["major"], faults.major)])
        .collect()
}

fn unregisters<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let others = scrape.snapshot.unregisters.iter();
    others
        .flat_map(|others| {
            let ring_exit = others.ring_exit.map(|count| Sample::count(&["ring_exit"], count));
            std::iter::once(Sample::count(&["cleanup"], others.internal)).chain(ring_exit)
        })
        .collect()
}

fn walks<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let walks = scrape.snapshot.walks.iter().flat_map(Walks::by_outcome);
    walks.map(|(outcome, count)| Sample::count(&[outcome], count)).collect()
}

fn walk_seconds<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    ratio(scrape.snapshot.walks.as_ref().map(|walks| walks.nanoseconds as f64 / 1e9))
}

fn operations<'a>(scrape: &Scrape<'a>, of: fn(&OperationBooks) -> Option<u64>) -> Vec<Sample<'a>> {
    let books = scrape.snapshot.books.operations.iter();
    books.filter_map(|books| Some(Sample::count(&[books.operation], of(books)?))).collect()
}

fn parts<'a>(scrape: &Scrape<'a>) -> impl Iterator<Item = (&'static str, &'a PartBooks)> + use<'a> {
    let books = &scrape.snapshot.books;
    [("buffer", &books.buffers), ("pin", &books.pins)]
        .into_iter()
        .filter_map(|(name, books)| Some((name, books.as_ref()?)))
}

fn hooks<'a>(
    scrape: &Scrape<'a>,
    operation: fn(&OperationBooks) -> Option<u64>,
    part: fn(&PartBooks) -> u64,
) -> Vec<Sample<'a>> {
    let parts = parts(scrape).map(|(name, books)| Sample::count(&[name], part(books)));
    operations(scrape, operation).into_iter().chain(parts).collect()
}

fn in_flight<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let books = scrape.snapshot.books.operations.iter();
    let operations = books.filter_map(|books| Some((books.operation, books.in_flight?)));
    let parts = parts(scrape).map(|(name, books)| (name, books.in_flight));
    operations.chain(parts).map(|(name, open)| Sample::number(&[name], open as f64)).collect()
}

fn skipped<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    scrape.snapshot.skipped.iter().map(|skipped| Sample::count(&[&skipped.program], skipped.runs)).collect()
}

fn losses<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let causes = scrape.snapshot.lost.by_cause().into_iter();
    causes.map(|(name, _, count)| Sample::count(&[name], count)).collect()
}

fn probes<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let probes = scrape.service.probes.iter();
    probes.map(|probe| flag(&[&probe.program, &probe.function, &probe.kind], probe.attached)).collect()
}

fn info<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let service = scrape.service;
    vec![flag(&[&service.version, &service.kernel, &service.mode], true)]
}
