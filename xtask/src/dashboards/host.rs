//! The host dashboard: which hooks are attached, where time is spent, and by which workloads.

use serde_json::json;

use super::{
    fleet::{balanced, installations_by_kind},
    grafana::{Dashboard, Panel, Row},
    query::{NO_CALLS, NO_WORKLOADS, NOT_MEASURED, NOTHING_YET, REGISTERED, coverage, or_none, quantile, share},
    variable::{data_source, job, variable},
};

/// Texts for figures that need one of the daemon's options.
const PHASES: &str = "not asked for (--phases)";
const LOCKS: &str = "not asked for (--locks), or not measured on this kernel";
const RINGS: &str = "not asked for (--rings)";
const LOOKUPS: &str = "not asked for (--lookups)";

/// The dashboard.
pub fn dashboard() -> Dashboard {
    Dashboard {
        uid: "pinscope-host",
        title: "pinscope / host",
        description: "One instance of pinscope: plan and health of its probes, durations and where the time goes, VMAs, faults, backings, and the same by workload.",
        variables: vec![
            data_source(),
            job(),
            variable("instance", "Instance", "The host.", r#"pinscope_info{job=~"$job"}"#, false),
            variable(
                "workload",
                "Workload",
                "Units, slices and containers of this host.",
                r#"pinscope_workload_info{job=~"$job", instance=~"$instance"}"#,
                true,
            ),
        ],
        rows: vec![health(), calls(), time(), memory(), workloads(), workload_table(), rings(), itself()],
    }
}

fn health() -> Row {
    let panels = vec![
        Panel::stat("Probes attached", "Attached probes, out of those planned.")
            .query("sum(pinscope_probe_attached{<here>})", "attached")
            .query("count(pinscope_probe_attached{<here>})", "planned")
            .option("graphMode", json!("none"))
            .size(4, 4)
            .no_value("not scraped"),
        Panel::stat("Degraded", "Figures that are unavailable on this kernel or with the daemon's options. `pinscope doctor` lists them with the reasons.")
            .query("sum(pinscope_degraded_reasons{<here>})", "reasons")
            .thresholds("green", &[("orange", 1.0)])
            .no_value("not scraped"),
        Panel::stat("Books", "Whether all counts add up: entries, returns, calls in flight, missed calls, and the kernel's own tracepoint.")
            .query("min(pinscope_books_balanced{<here>})", "books")
            .with(json!({ "mappings": balanced() }))
            .option("graphMode", json!("none"))
            .no_value("not scraped"),
        Panel::stat("Coverage", "Share of calls, buffers or pins in this time range that was measured: the lowest of all figures.")
            .unit("percentunit")
            .query(&format!("min({})", coverage("instance", "<range>")), "coverage")
            .at_the_end()
            .with(json!({ "decimals": 2 }))
            .thresholds("red", &[("orange", 0.99), ("green", 0.9999)])
            .no_value(NO_CALLS),
        Panel::stat("Attached for", "Time since the probes were attached, and since all counts began.")
            .unit("s")
            .with(json!({ "decimals": 0 }))
            .query("min(pinscope_attached_seconds{<here>})", "attached")
            .option("graphMode", json!("none"))
            .no_value("not scraped"),
        Panel::stat("Registered now", "Buffers in the tables of all rings, their bytes, and the pages under them. Memory shared by several buffers or rings is registered several times but pinned once. A lower bound if rings are unknown, or if buffers registered before the start could not be found.")
            .query("sum(pinscope_registered_buffers{<here>})", "buffers")
            .query("sum(pinscope_registered_bytes{<here>})", "registered")
            .query("sum(pinscope_pinned_bytes{<here>})", "pinned")
            .query("sum(pinscope_registered_unknown_rings{<here>})", "unknown rings")
            .query("sum(pinscope_registered_lower_bound{<here>})", "lower bound")
            .field("registered", &[("unit", json!("bytes"))])
            .field("pinned", &[("unit", json!("bytes"))])
            .size(4, 4)
            .no_value(REGISTERED),
        Panel::stat("In flight", "Registrations that have begun and not yet ended.")
            .query(r#"sum(pinscope_in_flight{<here>, hook=~"register|update|clone|unregister"})"#, "under way")
            .size(4, 4)
            .no_value(NOT_MEASURED),
        Panel::table("What runs", "Version, kernel, and attach mode of the probes.")
            .size(24, 4)
            .query("max by (version, kernel, mode) (pinscope_info{<here>})", "")
            .columns(&[("version", "Version"), ("kernel", "Kernel"), ("mode", "Mode")])
            .no_value("not scraped"),
        Panel::table("Probes", "The plan: each program, the kernel function or tracepoint that it hooks, and whether it is attached.")
            .size(10, 9)
            .query("min by (program, function, kind) (pinscope_probe_attached{<here>})", "")
            .columns(&[("program", "Program"), ("function", "Function"), ("kind", "Kind"), ("Value", "Attached")])
            .field("Attached", &[("mappings", json!([{ "type": "value", "options": {
                "0": { "color": "red", "index": 0, "text": "no" }, "1": { "color": "green", "index": 1, "text": "yes" },
            } }]))])
            .no_value("not scraped"),
        Panel::table("Unavailable figures", "Figures that are unavailable on this kernel or in this session, with the reasons.")
            .size(10, 9)
            .query("max by (figure, reason) (pinscope_degraded_reason{<here>})", "")
            .columns(&[("figure", "Figure"), ("reason", "Reason")])
            .no_value("all available, or not scraped"),
        Panel::table("Questions", "The state of the questions that `pinscope report` answers: answered, degraded or unanswerable with the data so far.")
            .size(4, 9)
            .query("max by (question, state) (pinscope_question_state{<here>} == 1)", "")
            .columns(&[("question", "Question"), ("state", "State")])
            .no_value("not scraped"),
    ];
    Row { title: "Plan and health", panels }
}

fn calls() -> Row {
    let duration = |operation: &str| {
        format!(r#"pinscope_registration_duration_seconds_bucket{{<here>, operation="{operation}", outcome="ok"}}"#)
    };
    let (register, update) = (duration("register"), duration("update"));
    let panels = vec![
        Panel::areas("Calls", "Calls per second by operation, including refused ones.")
            .unit("ops")
            .query("sum by (operation) (rate(pinscope_registrations_total{<here>}[<rate>]))", "{{operation}}")
            .no_value(NOT_MEASURED),
        Panel::areas(
            "Refused, by errno",
            "Calls per second that fail, or (partial) install only some of their buffers.",
        )
        .unit("ops")
        .query(
            &or_none(
                r#"sum by (operation, result) (rate(pinscope_registrations_total{<here>, result!="ok"}[<rate>]))"#,
                "result",
                "rate(pinscope_registrations_total{<here>}[<rate>])",
            ),
            "{{operation}} {{result}}",
        )
        .no_value(NOT_MEASURED),
        Panel::lines("Duration, quantiles", "Quantiles of successful registers and updates.")
            .unit("s")
            .query(&quantile("0.5", "", &register), "register p50")
            .query(&quantile("0.99", "", &register), "register p99")
            .query(&quantile("0.99", "", &update), "update p99")
            .no_value(NOTHING_YET),
        Panel::heatmap(
            "Duration of register",
            "Successful registers by their time from entry to return, without pinscope's own walks.",
            "s",
        )
        .query(&format!("sum by (le) (rate({register}[<rate>]))"), "{{le}}")
        .no_value(NOT_MEASURED),
        Panel::heatmap("Buffers per call", "Registers and updates by their number of buffers.", "short")
            .query("sum by (le) (rate(pinscope_registration_buffers_bucket{<here>}[<rate>]))", "{{le}}")
            .no_value(NOT_MEASURED),
        Panel::heatmap("Bytes per call", "Registers and updates by the total bytes of their buffers.", "bytes")
            .query("sum by (le) (rate(pinscope_registration_bytes_bucket{<here>}[<rate>]))", "{{le}}")
            .no_value(NOT_MEASURED),
    ];
    Row { title: "Calls", panels }
}

fn time() -> Row {
    let pin = "sum(rate(pinscope_pin_duration_seconds_sum{<here>}[<rate>]))";
    let all = r#"sum(rate(pinscope_registration_duration_seconds_sum{<here>, operation=~"register|update"}[<rate>]))"#;
    let panels = vec![
        Panel::areas("Where the time goes", "Seconds per second that registers and updates spend in the pin (GUP) and outside of it.")
            .unit("s")
            .query(pin, "pin")
            .query(&format!("{all} - {pin}"), "rest")
            .no_value(NOT_MEASURED),
        Panel::lines("Share of the time in the pin", "Share of GUP in the time of registers and updates.")
            .unit("percentunit")
            .with(json!({ "max": 1 }))
            .query(&share(pin, all), "pin")
            .no_value(NOTHING_YET),
        Panel::areas("Phases", "The same time in finer parts that do not overlap. For them the daemon hooks page faults, which it does only on request.")
            .unit("s")
            .query("sum by (phase) (rate(pinscope_phase_seconds_total{<here>}[<rate>]))", "{{phase}}")
            .no_value(PHASES),
        Panel::lines("Page faults in the pins", "Page faults per second during pins, on memory that was not present yet. Major faults wait for I/O.")
            .unit("cps")
            .query("sum by (kind) (rate(pinscope_page_faults_total{<here>}[<rate>]))", "{{kind}}")
            .no_value(NOT_MEASURED),
        Panel::lines("Waits for mmap_lock, p99", "Waits of registers and updates, for reading and for writing.")
            .unit("s")
            .query(&quantile("0.99", "side, ", "pinscope_mmap_lock_wait_seconds_bucket{<here>}"), "{{side}}")
            .no_value(LOCKS),
        Panel::lines("Oldest call under way", "Age of the oldest call that has not ended. With --calls, this includes its wait for the ring's lock.")
            .unit("s")
            .query("max(pinscope_oldest_call_seconds{<here>})", "oldest call")
            .no_value("not measured, or unknown whether the call has ended"),
        Panel::lines("VMA look-ups", "VMA look-ups per second that the kernel makes in pins.")
            .unit("cps")
            .query("sum(rate(pinscope_vma_lookups_total{<here>}[<rate>]))", "look-ups")
            .no_value(LOOKUPS),
    ];
    Row { title: "Where the time goes", panels }
}

fn memory() -> Row {
    let panels = vec![
        Panel::heatmap("VMAs per registration", "Registrations by the VMAs that they touch.", "short")
            .query("sum by (le) (rate(pinscope_registration_vmas_bucket{<here>}[<rate>]))", "{{le}}")
            .no_value(NOT_MEASURED),
        Panel::heatmap("VMAs per buffer", "Buffers by the VMAs that they touch.", "short")
            .query("sum by (le) (rate(pinscope_buffer_vmas_bucket{<here>}[<rate>]))", "{{le}}")
            .no_value(NOT_MEASURED),
        Panel::areas(
            "Buffers by backing",
            "Buffers per second with at least one VMA of that kind of memory. A buffer over several kinds counts under each.",
        )
        .unit("cps")
        .query(
            &or_none(
                "sum by (class, filesystem) (rate(pinscope_backing_buffers_total{<here>}[<rate>]))",
                "class",
                "rate(pinscope_walks_total{<here>}[<rate>])",
            ),
            "{{class}} {{filesystem}}",
        )
        .no_value(NOT_MEASURED),
    ];
    Row { title: "VMAs and backings", panels }
}

fn workloads() -> Row {
    let by = |expression: &str| format!("topk(10, sum by (workload) (rate({expression}[<rate>])))");
    let panels = vec![
        Panel::areas("Registrations", "Calls per second of the ten workloads with the most.")
            .unit("ops")
            .query(&by("pinscope_workload_registrations_total{<living>}"), "{{workload}}")
            .no_value(NO_WORKLOADS),
        Panel::lines(
            "Refused",
            "Calls per second that fail or install only some of their buffers, of the ten workloads with the most.",
        )
        .unit("ops")
        .query(&by(r#"pinscope_workload_registrations_total{<living>, outcome!="ok"}"#), "{{workload}}")
        .no_value(NO_WORKLOADS),
        Panel::lines(
            "Duration, p99",
            "99 of 100 registrations of the workload take at most this long; the ten slowest.",
        )
        .unit("s")
        .query(
            &format!(
                "topk(10, {})",
                quantile("0.99", "workload, ", "pinscope_workload_registration_duration_seconds_bucket{<living>}")
            ),
            "{{workload}}",
        )
        .no_value("none in this time, or not measured by workload"),
        Panel::areas("Time in the pin", "Seconds per second in GUP, of the ten workloads with the most.")
            .unit("s")
            .query(&by("pinscope_workload_pin_seconds_total{<living>}"), "{{workload}}")
            .no_value(NO_WORKLOADS),
        Panel::lines(
            "Switches at run time",
            "Tables and replacements of buffers per second on rings that already had requests, of the ten workloads with the most.",
        )
        .unit("cps")
        .query(&by("pinscope_workload_switches_total{<living>}"), "{{workload}}")
        .no_value(NO_WORKLOADS),
        Panel::lines(
            "VMAs per registration, p99",
            "99 of 100 registrations of the workload touch at most this many VMAs; the ten with the most.",
        )
        .query(
            &format!(
                "topk(10, {})",
                quantile("0.99", "workload, ", "pinscope_workload_registration_vmas_bucket{<living>}")
            ),
            "{{workload}}",
        )
        .no_value("none in this time, or not measured by workload"),
        Panel::areas(
            "Pinned",
            "Bytes of the pages under the buffers that the workload's tasks have registered, of the ten with the most.",
        )
        .unit("bytes")
        .query("topk(10, sum by (workload) (pinscope_workload_pinned_bytes{<work>}))", "{{workload}}")
        .no_value(REGISTERED),
        Panel::areas(
            "Registered",
            "Bytes in the tables of the rings that the workload's tasks created, of the ten with the most.",
        )
        .unit("bytes")
        .query("topk(10, sum by (workload) (pinscope_workload_registered_bytes{<work>}))", "{{workload}}")
        .no_value(REGISTERED),
    ];
    Row { title: "By workload", panels }
}

fn workload_table() -> Row {
    let total = |metric: &str| format!("sum by (workload) (max_over_time({metric}[<range>]))");
    let panels = vec![
        Panel::table("Workloads", "Each workload with its counts since the probes were attached (the highest in this time range). Workloads beyond the limit are combined as `other`, ended ones as `ended`.")
            .size(24, 9)
            .query("max by (workload, kind, unit, slice, pod_uid, container_id, runtime) (pinscope_workload_info{<work>})", "")
            .query(&total("pinscope_workload_registrations_total{<work>}"), "")
            .query(&total(r#"pinscope_workload_registrations_total{<work>, outcome!="ok"}"#), "")
            .query(&total("pinscope_workload_buffers_total{<work>}"), "")
            .query(&total("pinscope_workload_bytes_total{<work>}"), "")
            .query(&total("pinscope_workload_pin_seconds_total{<work>}"), "")
            .query(&total("pinscope_workload_page_faults_total{<work>}"), "")
            .query(&total("pinscope_workload_switches_total{<work>}"), "")
            .columns(&[
                ("workload", "Workload"), ("kind", "Kind"), ("unit", "Unit"), ("slice", "Slice"), ("pod_uid", "Pod"),
                ("container_id", "Container"), ("runtime", "Runtime"), ("Value #B", "Calls"), ("Value #C", "Refused"),
                ("Value #D", "Buffers"), ("Value #E", "Bytes"), ("Value #F", "In the pin"), ("Value #G", "Page faults"),
                ("Value #H", "Switches"),
            ])
            .field("Bytes", &[("unit", json!("bytes"))])
            .field("In the pin", &[("unit", json!("s"))])
            .sorted_by("Calls")
            .no_value(NO_WORKLOADS),
    ];
    Row { title: "Workloads, since the probes were attached", panels }
}

fn rings() -> Row {
    let panels = vec![
        installations_by_kind(),
        Panel::heatmap("Age of the ring", "Installations by the age of their ring.", "s")
            .query("sum by (le) (rate(pinscope_ring_age_seconds_bucket{<here>}[<rate>]))", "{{le}}")
            .no_value(RINGS),
        Panel::heatmap(
            "Gap to the one before",
            "Installations by the time since the previous one on the same ring.",
            "s",
        )
        .query("sum by (le) (rate(pinscope_ring_gap_seconds_bucket{<here>}[<rate>]))", "{{le}}")
        .no_value(RINGS),
    ];
    Row { title: "Rings", panels }
}

fn itself() -> Row {
    let panels = vec![
        Panel::lines(
            "CPU of the probes",
            "Run time of each eBPF program in seconds per second, over all CPUs, if the kernel's statistics are on.",
        )
        .unit("s")
        .query("sum by (program) (rate(pinscope_program_run_seconds_total{<here>}[<rate>]))", "{{program}}")
        .no_value("not asked for (--stats)"),
        Panel::lines(
            "CPU of the daemon",
            "CPU seconds per second of the process, and of its VMA walks, which run in the traced tasks.",
        )
        .unit("s")
        .query("sum(rate(process_cpu_seconds_total{<here>}[<rate>]))", "daemon")
        .query("sum(rate(pinscope_walk_seconds_total{<here>}[<rate>]))", "walks, in the tasks")
        .no_value(NOT_MEASURED),
        Panel::lines("Memory of the daemon", "Resident bytes.")
            .unit("bytes")
            .query("sum(process_resident_memory_bytes{<here>})", "resident")
            .no_value("not exported by this version"),
        Panel::lines("Lost, by cause", "Losses per second because a map or buffer was full.")
            .unit("cps")
            .query("sum by (what) (rate(pinscope_lost_total{<here>}[<rate>]))", "{{what}}")
            .no_value(NOT_MEASURED),
        Panel::lines("Not seen", "Entries, returns and runs that pinscope did not see, per second.")
            .unit("cps")
            .query("sum by (hook) (rate(pinscope_missed_entries_total{<here>}[<rate>])) > 0", "entries of {{hook}}")
            .query("sum by (hook) (rate(pinscope_missed_returns_total{<here>}[<rate>])) > 0", "returns of {{hook}}")
            .query("sum by (program) (rate(pinscope_skipped_runs_total{<here>}[<rate>])) > 0", "runs of {{program}}")
            .no_value("nothing was missed, or not measured"),
        Panel::lines(
            "Workloads kept apart",
            "Number of workloads with series of their own; per second, workloads combined with others, and calls attributed to no workload.",
        )
        .query("sum(pinscope_workloads{<here>})", "kept apart")
        .query("sum by (cause) (rate(pinscope_workloads_folded_total{<here>}[<rate>]))", "folded: {{cause}}")
        .query("sum(rate(pinscope_workload_unattributed_calls_total{<here>}[<rate>]))", "calls of no workload")
        .no_value("not measured by workload"),
    ];
    Row { title: "pinscope itself", panels }
}
