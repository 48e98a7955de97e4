//! The fleet dashboard: all hosts at once, and which of them need attention.

use serde_json::json;

use super::{
    grafana::{Dashboard, Panel, Row},
    query::{NO_CALLS, NO_WORKLOADS, NOT_MEASURED, NOTHING_YET, REGISTERED, coverage, or_none, quantile, share},
    variable::{data_source, job, variable},
};

/// The dashboard.
pub fn dashboard() -> Dashboard {
    Dashboard {
        uid: "pinscope-fleet",
        title: "pinscope / fleet",
        description: "io_uring buffer registration on all hosts: volume, duration, memory, refusals, sets switched at run time, and how reliable the figures are.",
        variables: vec![
            data_source(),
            job(),
            variable("instance", "Instance", "Hosts.", r#"pinscope_info{job=~"$job"}"#, true),
            variable(
                "workload",
                "Workload",
                "Units, slices and containers; for the panels by workload.",
                r#"pinscope_workload_info{job=~"$job", instance=~"$instance"}"#,
                true,
            ),
        ],
        rows: vec![summary(), registrations(), memory(), refusals(), switching(), trust()],
    }
}

fn summary() -> Row {
    let installations = "sum(rate(pinscope_installations_total{<here>}[<rate>]))";
    let panels = vec![
        Panel::stat("Instances", "Instances of pinscope that were scraped.")
            .query("count(pinscope_info{<here>})", "instances")
            .no_value("none scraped"),
        Panel::stat("Down", "Instances that Prometheus could not scrape.")
            .query("count(up{<here>} == 0) or 0 * count(up{<here>})", "down")
            .thresholds("green", &[("red", 1.0)])
            .no_value("no target of this job"),
        Panel::stat("Registrations", "Calls per second that install, change or remove a ring's table of buffers.")
            .unit("ops")
            .query("sum(rate(pinscope_registrations_total{<here>}[<rate>]))", "calls")
            .no_value(NOT_MEASURED),
        Panel::stat("Refused", "Share of the calls that install buffers and fail.")
            .unit("percentunit")
            .query(
                &share(
                    r#"sum(rate(pinscope_registrations_total{<here>, <install>, result!="ok"}[<rate>])) or 0 * sum(rate(pinscope_registrations_total{<here>, <install>}[<rate>]))"#,
                    "sum(rate(pinscope_registrations_total{<here>, <install>}[<rate>]))",
                ),
                "refused",
            )
            .thresholds("green", &[("orange", 0.01), ("red", 0.1)])
            .no_value(NOTHING_YET),
        Panel::stat("p99 duration", "99 of 100 successful registrations take at most this long. The bound of a histogram's bucket: up to twice too high.")
            .unit("s")
            .query(
                &quantile("0.99", "", r#"pinscope_registration_duration_seconds_bucket{<here>, operation="register", outcome="ok"}"#),
                "p99",
            )
            .no_value(NOTHING_YET),
        Panel::stat("At run time", "Share of the installations that may have replaced other buffers on rings that already had requests: whole tables and replacements. Updates of empty slots and clones do not count.")
            .unit("percentunit")
            .query(&share(&format!("sum(rate({SWITCHES}[<rate>]))"), installations), "switches")
            .no_value(NOTHING_YET),
        Panel::stat("Pinned now", "Bytes of the pages under all registered buffers, each page counted once, over the instances that measure it. Also shown: instances that do not, and instances whose figure is a lower bound.")
            .query("sum(pinscope_pinned_bytes{<here>})", "pinned")
            .query("count(pinscope_info{<here>} unless on (job, instance) pinscope_pinned_bytes{<here>}) or 0 * count(pinscope_info{<here>})", "instances without")
            .query("sum(pinscope_registered_lower_bound{<here>})", "lower bounds")
            .query("sum(pinscope_registered_unknown_rings{<here>})", "unknown rings")
            .field("pinned", &[("unit", json!("bytes"))])
            .no_value(REGISTERED),
        Panel::stat("Coverage", "Share of calls, buffers or pins in this time range that was measured: the lowest of all instances and figures.")
            .unit("percentunit")
            .query(&format!("min({})", coverage("instance", "<range>")), "lowest")
            .at_the_end()
            .with(json!({ "min": 0, "max": 1, "decimals": 2 }))
            .thresholds("red", &[("orange", 0.99), ("green", 0.9999)])
            .no_value(NO_CALLS),
    ];
    Row { title: "Now", panels }
}

fn registrations() -> Row {
    let duration = r#"pinscope_registration_duration_seconds_bucket{<here>, operation="register", outcome="ok"}"#;
    let panels = vec![
        Panel::areas("Registrations", "Calls per second by operation, including refused ones.")
            .unit("ops")
            .query("sum by (operation) (rate(pinscope_registrations_total{<here>}[<rate>]))", "{{operation}}")
            .no_value(NOT_MEASURED),
        Panel::heatmap("Duration", "Successful registrations by their time from entry to return, over all hosts, without pinscope's own walks.", "s")
            .query(&format!("sum by (le) (rate({duration}[<rate>]))"), "{{le}}")
            .no_value(NOT_MEASURED),
        Panel::heatmap("VMAs per registration", "Registrations by the VMAs that they touch.", "short")
            .query("sum by (le) (rate(pinscope_registration_vmas_bucket{<here>}[<rate>]))", "{{le}}")
            .no_value(NOT_MEASURED),
        Panel::lines("Duration, quantiles", "Quantiles of successful registrations, over the summed buckets of all hosts.")
            .unit("s")
            .query(&quantile("0.5", "", duration), "p50")
            .query(&quantile("0.9", "", duration), "p90")
            .query(&quantile("0.99", "", duration), "p99")
            .no_value(NOTHING_YET),
        Panel::lines("Share of the time in the pin", "Share of GUP in the time of registers and updates. The rest is io_uring's own: accounting, copying the iovecs, building its table.")
            .unit("percentunit")
            .with(json!({ "max": 1 }))
            .query(
                &share(
                    "sum(rate(pinscope_pin_duration_seconds_sum{<here>}[<rate>]))",
                    r#"sum(sum by (job, instance) (rate(pinscope_registration_duration_seconds_sum{<here>, operation=~"register|update"}[<rate>])) and on (job, instance) pinscope_pin_duration_seconds_sum{<here>})"#,
                ),
                "pin",
            )
            .no_value(NOTHING_YET),
        Panel::lines("One VMA only", "Share of the registrations, and of the buffers, that touch a single VMA.")
            .unit("percentunit")
            .with(json!({ "max": 1 }))
            .query(&single("pinscope_registration_vmas"), "registrations")
            .query(&single("pinscope_buffer_vmas"), "buffers")
            .no_value(NOTHING_YET),
    ];
    Row { title: "Registrations", panels }
}

/// Share of a histogram's values that are 1. Prometheus 3 stores these bounds as `1.0` and `0.0`; Prometheus 2 stores
/// them unchanged.
fn single(histogram: &str) -> String {
    let at_most = |bound: &str| format!(r#"sum(rate({histogram}_bucket{{<here>, le=~"{bound}([.]0)?"}}[<rate>]))"#);
    share(&format!("{} - {}", at_most("1"), at_most("0")), &format!("sum(rate({histogram}_count{{<here>}}[<rate>]))"))
}

fn memory() -> Row {
    let walks = "rate(pinscope_walks_total{<here>}[<rate>])";
    let class = |metric: &str| or_none(&format!("sum by (class) (rate({metric}{{<here>}}[<rate>]))"), "class", walks);
    let by = "class, filesystem, shared, writable, outcome";
    let panels = vec![
        Panel::areas("Buffers by backing", "Buffers per second with at least one VMA of that kind of memory. A buffer over several kinds counts under each.")
            .unit("cps")
            .query(&class("pinscope_backing_buffers_total"), "{{class}}")
            .no_value(NOT_MEASURED),
        Panel::areas("Bytes by backing", "Bytes of buffers per second on that kind of memory.")
            .unit("Bps")
            .query(&class("pinscope_backing_bytes_total"), "{{class}}")
            .no_value(NOT_MEASURED),
        Panel::lines("Buffers over several files", "Buffers per second that span more than one vm_file, which kernels 6.3 and 6.4 refuse, and more than one file. A file that was opened twice is two vm_files.")
            .unit("cps")
            .query("sum(rate(pinscope_multi_vm_file_buffers_total{<here>}[<rate>]))", "several vm_files")
            .query("sum(rate(pinscope_multi_file_buffers_total{<here>}[<rate>]))", "several files")
            .no_value(NOT_MEASURED),
        Panel::table("Backings", "Memory under all buffers since the probes were attached. The counts are the highest in this time range, so that they include registrations made once, at a program's start.")
            .size(24, 8)
            .query(&since_attach(&format!("sum by ({by})"), "pinscope_backing_buffers_total"), "")
            .query(&since_attach(&format!("sum by ({by})"), "pinscope_backing_vmas_total"), "")
            .query(&since_attach(&format!("sum by ({by})"), "pinscope_backing_bytes_total"), "")
            .columns(&[
                ("class", "Class"), ("filesystem", "Filesystem"), ("shared", "Shared"), ("writable", "Writable"),
                ("outcome", "Outcome"), ("Value #A", "Buffers"), ("Value #B", "VMAs"), ("Value #C", "Bytes"),
            ])
            .field("Bytes", &[("unit", json!("bytes"))])
            .sorted_by("Buffers")
            .no_value("no buffer seen yet, or not measured on these kernels"),
    ];
    Row { title: "What lies behind the buffers", panels }
}

/// Value of a counter since its probes were attached. A rate would miss the counter's first value.
fn since_attach(sum: &str, counter: &str) -> String {
    format!("{sum} (max_over_time({counter}{{<here>}}[<range>]))")
}

fn refusals() -> Row {
    let all = "rate(pinscope_registrations_total{<here>}[<rate>])";
    let panels = vec![
        Panel::areas("Refused, by errno", "Failed calls per second. ENXIO from an unregister means that there was no table.")
            .size(12, 8)
            .unit("ops")
            .query(
                &or_none(
                    r#"sum by (operation, result) (rate(pinscope_registrations_total{<here>, result!="ok"}[<rate>]))"#,
                    "result",
                    all,
                ),
                "{{operation}} {{result}}",
            )
            .no_value(NOT_MEASURED),
        Panel::table("Refused, by instance", "Calls that failed or (partial) installed only some of their buffers since the probes were attached: the highest count in this time range.")
            .size(12, 8)
            .query(
                r#"topk(50, sum by (instance, operation, result) (max_over_time(pinscope_registrations_total{<here>, result!="ok"}[<range>])))"#,
                "",
            )
            .columns(&[("instance", "Instance"), ("operation", "Operation"), ("result", "Result"), ("Value", "Calls")])
            .field("Instance", &[("links", to_host())])
            .sorted_by("Calls")
            .no_value("none refused, or not measured"),
    ];
    Row { title: "Refusals", panels }
}

/// Link from a row to the dashboard of its host.
pub fn to_host() -> serde_json::Value {
    json!([{
        "title": "This host",
        "url": "/d/pinscope-host?var-datasource=${datasource}&${job:queryparam}&var-instance=${__value.raw}&${__url_time_range}",
    }])
}

/// Installations that may have replaced other buffers at run time.
const SWITCHES: &str = r#"pinscope_installations_total{<here>, requests="after", kind=~"table|replacement|update"}"#;

fn switching() -> Row {
    let panels = vec![
        installations_by_kind(),
        Panel::lines(
            "Who switches: instances",
            "The ten instances with the most tables and replacements per second on rings at work.",
        )
        .unit("cps")
        .query(&format!("topk(10, sum by (instance) (rate({SWITCHES}[<rate>])))"), "{{instance}}")
        .no_value(NOT_MEASURED),
        Panel::lines(
            "Who switches: workloads",
            "The ten workloads with the most tables and replacements per second on rings at work, over all hosts.",
        )
        .unit("cps")
        .query("topk(10, sum by (workload) (rate(pinscope_workload_switches_total{<living>}[<rate>])))", "{{workload}}")
        .no_value(NO_WORKLOADS),
    ];
    Row { title: "Who switches sets at run time", panels }
}

/// Panel shared by the rows about set-up and run time.
pub fn installations_by_kind() -> Panel {
    Panel::areas("Installations before and after requests", "Installations per second on fresh rings (before their first request) and on rings at work, by kind. Whole tables and replacements on rings at work are sets switched at run time; updates of empty slots (fill) are set-up, and clones pin nothing.")
        .unit("cps")
        .query("sum by (requests, kind) (rate(pinscope_installations_total{<here>}[<rate>]))", "{{kind}}, {{requests}} requests")
        .no_value(NOT_MEASURED)
}

fn trust() -> Row {
    let panels = vec![
        Panel::lines("Coverage, the lowest ten", "Share of calls, buffers or pins that was measured: the lowest of all figures.")
            .unit("percentunit")
            .with(json!({ "max": 1 }))
            .query(&format!("bottomk(10, min by (instance) ({}))", coverage("instance", "<rate>")), "{{instance}}")
            .no_value(NO_CALLS),
        Panel::lines("Lost, by cause", "Losses per second because a map or buffer was full. `pinscope report` explains each cause.")
            .unit("cps")
            .query("sum by (what) (rate(pinscope_lost_total{<here>}[<rate>]))", "{{what}}")
            .no_value(NOT_MEASURED),
        Panel::lines("Not seen", "Entries and returns of hooked functions that pinscope did not see, per second: counted, but not measured.")
            .unit("cps")
            .query("sum(rate(pinscope_missed_entries_total{<here>}[<rate>]))", "entries")
            .query("sum(rate(pinscope_missed_returns_total{<here>}[<rate>]))", "returns")
            .query("sum(rate(pinscope_skipped_runs_total{<here>}[<rate>]))", "runs skipped by the kernel")
            .no_value(NOT_MEASURED),
        Panel::table("Instances", "Versions of pinscope and kernels by instance, and how much each can measure.")
            .size(24, 8)
            .query("max by (instance, version, kernel, mode) (pinscope_info{<here>})", "")
            .query("sum by (instance) (pinscope_attached_seconds{<here>})", "")
            .query("sum by (instance) (pinscope_degraded_reasons{<here>})", "")
            .query("count by (instance) (pinscope_probe_attached{<here>} == 0) or 0 * count by (instance) (pinscope_probe_attached{<here>})", "")
            .query(&format!("min by (instance) ({})", coverage("instance", "<range>")), "")
            .query("min by (instance) (min_over_time(pinscope_books_balanced{<here>}[<range>]))", "")
            .columns(&[
                ("instance", "Instance"), ("version", "Version"), ("kernel", "Kernel"), ("mode", "Mode"),
                ("Value #B", "Attached for"), ("Value #C", "Degraded"), ("Value #D", "Probes missing"),
                ("Value #E", "Coverage"), ("Value #F", "Books"),
            ])
            .field("Instance", &[("links", to_host())])
            .field("Attached for", &[("unit", json!("s")), ("decimals", json!(0))])
            .field("Coverage", &[("unit", json!("percentunit")), ("noValue", json!(NO_CALLS))])
            .field("Books", &[("mappings", balanced())])
            .no_value("none scraped"),
    ];
    Row { title: "How far the figures hold", panels }
}

/// Value mapping of 1 and 0 to words.
pub fn balanced() -> serde_json::Value {
    json!([{ "type": "value", "options": {
        "0": { "color": "orange", "index": 0, "text": "open" }, "1": { "color": "green", "index": 1, "text": "balanced" },
    } }])
}
