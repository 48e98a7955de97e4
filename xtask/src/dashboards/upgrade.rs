//! The upgrade: whom the rule of another kernel would refuse.

use serde_json::json;

use super::{
    fleet::to_host,
    grafana::{Dashboard, Panel, Row},
    query::{NO_WORKLOADS, NOT_MEASURED, or_none, share},
    variable::{choice, data_source, job, variable},
};

const RULES: &str = "\
Every buffer is held against four rules, whatever kernel it runs on. All of them refuse what GUP never writes to.\n\n\
| policy | kernels | refuses |\n|---|---|---|\n\
| `before_6_5` | to 6.2 | file mappings other than shmem and hugetlb (EOPNOTSUPP) |\n\
| `single_source` | 6.3 and 6.4, some stable ones | the same, and buffers over several files (EINVAL) |\n\
| `as_proposed` | none: the patch of April 2023 | any write to a file mapping other than shmem and hugetlb (EFAULT) |\n\
| `since_6_5` | 6.5 and later | shared, writable file mappings that need dirty tracking (EFAULT) |\n\n\
Choose at the top the rule of the kernel you upgrade to. Counts are since the probes were attached: a program that \
registers once, at its start, is in them only if pinscope was there before it. Where it was started anew within the \
time shown, they are of the start with most.";

/// What a query of the chosen rule matches.
const CHOSEN: &str = r#"<here>, policy="$policy", outcome="ok""#;

/// The dashboard.
pub fn dashboard() -> Dashboard {
    Dashboard {
        uid: "pinscope-upgrade",
        title: "pinscope / upgrade",
        description: "Whose registered buffers another kernel would refuse: every buffer held against four kernels' rules, by errno, memory, host and workload; and whether the running kernels answer as their own rule says.",
        variables: vec![
            data_source(),
            choice(
                "policy",
                "Rule",
                "The rule of the kernel to upgrade to.",
                &["since_6_5", "as_proposed", "single_source", "before_6_5"],
            ),
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
        rows: vec![summary(), who(), over_time(), answers()],
    }
}

/// The sum of a counter as it stood since the probes were attached.
fn standing(by: &str, selector: &str) -> String {
    format!("sum{by} (max_over_time({selector}[<range>]))")
}

fn summary() -> Row {
    let refused = standing("", &format!("pinscope_policy_refusals_total{{{CHOSEN}}}"));
    let judged = standing("", "pinscope_judged_buffers_total{<here>}");
    let known = standing("", r#"pinscope_judged_buffers_total{<here>, judged=~"clean|other"}"#);
    let panels = vec![
        Panel::stat("Buffers it would refuse", "Of the chosen rule, of what the running kernels accepted since the probes were attached.")
            .size(4, 4)
            .query(&format!("({refused}) or 0 * ({judged})"), "buffers")
            .thresholds("green", &[("red", 1.0)])
            .at_the_end()
            .no_value(NOT_MEASURED),
        Panel::stat("Share of the buffers", "Of those that were judged.")
            .size(4, 4)
            .unit("percentunit")
            .query(&share(&format!("({refused}) or 0 * ({judged})"), &known), "refused")
            .at_the_end()
            .no_value("no buffer judged yet, or not measured"),
        Panel::stat("Hosts", "Instances with at least one such buffer.")
            .size(4, 4)
            .query(
                &format!(
                    "count({} > 0) or 0 * ({judged})",
                    standing(" by (instance)", &format!("pinscope_policy_refusals_total{{{CHOSEN}}}"))
                ),
                "instances",
            )
            .thresholds("green", &[("red", 1.0)])
            .at_the_end()
            .no_value(NOT_MEASURED),
        Panel::stat("Workloads", "Workloads with at least one such buffer, of those that are there; what those that went away had is in the sums.")
            .size(4, 4)
            .query(
                &format!(
                    "count({} > 0) or 0 * count(pinscope_workload_policy_refusals_total{{<work>}})",
                    standing(" by (workload)", r#"pinscope_workload_policy_refusals_total{<living>, policy="$policy"}"#)
                ),
                "workloads",
            )
            .thresholds("green", &[("red", 1.0)])
            .at_the_end()
            .no_value(NO_WORKLOADS),
        Panel::stat("Not judged", "Buffers of which too little is known: not walked to the end, or no room to count them.")
            .size(4, 4)
            .query(&standing("", r#"pinscope_judged_buffers_total{<here>, judged="unjudged"}"#), "buffers")
            .thresholds("green", &[("orange", 1.0)])
            .at_the_end()
            .no_value(NOT_MEASURED),
        Panel::stat("Answers against the rule", "Times that a running kernel did not answer as its own rule says: the judgement is wrong there, or the kernel is a patched one.")
            .size(4, 4)
            .query(&standing("", r#"pinscope_policy_answers_total{<here>, answer!="agreed"}"#), "answers")
            .thresholds("green", &[("orange", 1.0)])
            .at_the_end()
            .no_value("these kernels' rule cannot be told"),
        Panel::bars("Buffers that each rule would refuse", "Of what the running kernels accepted since the probes were attached.")
            .size(12, 9)
            .query(
                &or_none(&standing(" by (policy)", r#"pinscope_policy_refusals_total{<here>, outcome="ok"}"#), "policy", "pinscope_judged_buffers_total{<here>}"),
                "{{policy}}",
            )
            .no_value(NOT_MEASURED),
        Panel::text("The rules", RULES).size(12, 9),
    ];
    Row { title: "Would the next kernel refuse it?", panels }
}

fn who() -> Row {
    let all = |metric: &str| format!("{metric}{{{CHOSEN}}}");
    let by = " by (instance, errno, class, filesystem)";
    let panels = vec![
        Panel::table("By host and memory", "Buffers that were accepted and that the chosen rule would refuse, since the probes were attached.")
            .size(12, 9)
            .query(&standing(by, &all("pinscope_policy_refusals_total")), "")
            .query(&standing(by, &all("pinscope_policy_refused_bytes_total")), "")
            .columns(&[
                ("instance", "Instance"), ("errno", "Answer"), ("class", "Class"), ("filesystem", "Filesystem"),
                ("Value #A", "Buffers"), ("Value #B", "Bytes"),
            ])
            .field("Instance", &[("links", to_host())])
            .field("Bytes", &[("unit", json!("bytes"))])
            .sorted_by("Buffers")
            .no_value("none would be refused, or not measured on these kernels"),
        Panel::table("By workload", "Buffers that were accepted and that the chosen rule would refuse, since the probes were attached, and what the workload is.")
            .size(12, 9)
            .query(
                r#"(sum by (job, instance, workload) (max_over_time(pinscope_workload_policy_refusals_total{<work>, policy="$policy"}[<range>])) > 0) * on (job, instance, workload) group_left (kind, unit, pod_uid, container_id) max by (job, instance, workload, kind, unit, pod_uid, container_id) (pinscope_workload_info{<work>})"#,
                "",
            )
            .columns(&[
                ("instance", "Instance"), ("workload", "Workload"), ("kind", "Kind"), ("unit", "Unit"),
                ("pod_uid", "Pod"), ("container_id", "Container"), ("Value", "Buffers"),
            ])
            .field("Instance", &[("links", to_host())])
            .sorted_by("Buffers")
            .no_value("none would be refused, or not told by workload"),
    ];
    Row { title: "Who, and with which memory", panels }
}

fn over_time() -> Row {
    let judged = "rate(pinscope_judged_buffers_total{<here>}[<rate>])";
    let panels = vec![
        Panel::lines("By rule", "Buffers a second that were accepted and that each rule would refuse.")
            .unit("cps")
            .query(&or_none(r#"sum by (policy) (rate(pinscope_policy_refusals_total{<here>, outcome="ok"}[<rate>]))"#, "policy", judged), "{{policy}}")
            .no_value(NOT_MEASURED),
        Panel::areas("By memory, chosen rule", "Buffers a second that were accepted and that the chosen rule would refuse, by what lies behind them.")
            .unit("cps")
            .query(
                &or_none(
                    &format!("sum by (errno, class, filesystem) (rate(pinscope_policy_refusals_total{{{CHOSEN}}}[<rate>]))"),
                    "class",
                    judged,
                ),
                "{{errno}} {{class}} {{filesystem}}",
            )
            .no_value(NOT_MEASURED),
        Panel::lines("By workload, chosen rule", "Buffers a second that were accepted and that the chosen rule would refuse, of the ten workloads with most.")
            .unit("cps")
            .query(
                r#"topk(10, sum by (workload) (rate(pinscope_workload_policy_refusals_total{<living>, policy="$policy"}[<rate>])))"#,
                "{{workload}}",
            )
            .no_value("none would be refused, or not told by workload"),
    ];
    Row { title: "Over time", panels }
}

fn answers() -> Row {
    let panels = vec![
        Panel::areas("Buffers judged", "Buffers a second: clean (no rule looks at what they have, and the kernel took them), other, and unjudged.")
            .unit("cps")
            .query("sum by (judged) (rate(pinscope_judged_buffers_total{<here>}[<rate>]))", "{{judged}}")
            .no_value(NOT_MEASURED),
        Panel::lines("The kernels' answers against their own rule", "Buffers a second by whether the kernel answered as its own rule says. What disagrees says how far the judgement can be trusted.")
            .unit("cps")
            .query("sum by (answer) (rate(pinscope_policy_answers_total{<here>}[<rate>]))", "{{answer}}")
            .color("agreed", "green")
            .color(".*though.*", "red")
            .no_value("these kernels' rule cannot be told"),
        Panel::table("By kernel", "Instances by the kernel that they run, and the answers of these kernels against their own rule since the probes were attached.")
            .query("count by (kernel) (pinscope_info{<here>})", "")
            .query(&answered("agreed"), "")
            .query(&answered("accepted_though_refused|refused_though_accepted"), "")
            .columns(&[("kernel", "Kernel"), ("Value #A", "Hosts"), ("Value #B", "Agreed"), ("Value #C", "Disagreed")])
            .no_value("none scraped"),
    ];
    Row { title: "How far the judgement holds", panels }
}

/// Answers by kernel: as they stand now, since a host may have run another kernel earlier in this time.
fn answered(answer: &str) -> String {
    format!(
        r#"sum by (kernel) (sum by (job, instance) (pinscope_policy_answers_total{{<here>, answer=~"{answer}"}}) * on (job, instance) group_left (kernel) max by (job, instance, kernel) (pinscope_info{{<here>}}))"#
    )
}
