//! The upgrade dashboard, for mixed kernels and upgrades: what one kernel accepts and another refuses.

use serde_json::json;

use super::{
    fleet::to_host,
    grafana::{Dashboard, Panel, Row},
    query::{NO_WORKLOADS, NOT_MEASURED, or_none},
    variable::{choice, data_source, job, variable},
};

const RULES: &str = "\
Every buffer is checked against five rules, independent of the kernel it runs on. The answer of the kernel's own rule is compared with the kernel's. \
All rules refuse memory that GUP never writes to.\n\n\
| policy | kernels | refuses |\n|---|---|---|\n\
| `before_6_5` | to 6.2 | file mappings other than shmem and hugetlb (EOPNOTSUPP); more than 1 GiB (EFAULT) |\n\
| `single_source` | 6.3 and 6.4, some stable ones | the same, and buffers over several files (EINVAL) |\n\
| `as_proposed` | none: the patch of April 2023 | any write to a file mapping other than shmem and hugetlb, more than 1 GiB (EFAULT) |\n\
| `since_6_5` | 6.5 to 7.1 | shared, writable file mappings that need dirty tracking, more than 1 GiB (EFAULT) |\n\
| `since_7_2` | 7.2 and later | shared, writable file mappings that need dirty tracking (EFAULT) |\n\n\
An upgrade to the newest kernel only lifts refusals; new refusals come from hosts with other, older kernels. \
Choose the other kernels' rules at the top. Counts begin when the probes are attached: a program \
that registers once, at its start, is counted only if pinscope started before it.";

/// Selectors of buffers, or their bytes, for which the chosen rules give another answer.
const REFUSED: &str = r#"<here>, change="refused", policy=~"$policy""#;
const ACCEPTED: &str = r#"<here>, change="accepted", policy=~"$policy""#;
const BY: &str = " by (instance, policy, errno, class, filesystem)";
const CHANGES: &str = "pinscope_policy_changes_total";
const BYTES: &str = "pinscope_policy_changed_bytes_total";
const JUDGED: &str = "pinscope_judged_buffers_total{<here>}";

/// The dashboard.
pub fn dashboard() -> Dashboard {
    Dashboard {
        uid: "pinscope-upgrade",
        title: "pinscope / upgrade",
        description: "What one kernel accepts and another refuses: buffers that hosts with other kernels would refuse, and refusals that a newer kernel lifts, by rule, errno, memory, host and workload; and whether the running kernels follow their own rule.",
        variables: vec![
            data_source(),
            choice(
                "policy",
                "Other rule",
                "Rules of other kernels on which a program runs or is going to run.",
                &["since_7_2", "since_6_5", "single_source", "before_6_5", "as_proposed"],
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

/// Sum of a counter's value since the probes were attached.
fn standing(by: &str, selector: &str) -> String {
    format!("sum{by} (max_over_time({selector}[<range>]))")
}

/// Accepted buffers that another of the chosen hosts would refuse by its rule.
fn beside(by: &str) -> String {
    format!(
        r#"sum{by} (max_over_time({CHANGES}{{<here>, change="refused"}}[<range>]) and on (job, policy) pinscope_kernel_policy{{<here>}})"#
    )
}

/// Changed answers, by the rule of the host with the counts and by the other rule.
fn between(change: &str) -> String {
    format!(
        r#"sum by (own, policy) (max_over_time({CHANGES}{{<here>, change="{change}", policy=~"$policy"}}[<range>]) * on (job, instance) group_left (own) max by (job, instance, own) (label_replace(pinscope_kernel_policy{{<here>}}, "own", "$1", "policy", "(.+)")))"#
    )
}

fn summary() -> Row {
    let judged = standing("", JUDGED);
    let panels = vec![
        Panel::stat("Refused by a host beside it", "Buffers that one host accepted and another of the hosts shown would refuse, for the rule that refuses most of them.")
            .size(4, 4)
            .query(&format!("max({}) or 0 * ({judged})", beside(" by (policy)")), "buffers")
            .thresholds("green", &[("red", 1.0)])
            .at_the_end()
            .no_value(NOT_MEASURED),
        Panel::stat("Hosts with such buffers", "Instances that accepted a buffer which another of those shown would refuse.")
            .size(4, 4)
            .query(&format!("count({} > 0) or 0 * ({judged})", beside(" by (job, instance)")), "instances")
            .thresholds("green", &[("red", 1.0)])
            .at_the_end()
            .no_value(NOT_MEASURED),
        Panel::stat("An upgrade would lift", "Buffers that a host refused by its rule and that the newest kernel accepts. If a buffer was refused for its length, nothing else may be known about it.")
            .size(4, 4)
            .query(
                &format!(
                    "({}) or 0 * ({judged})",
                    standing("", &format!(r#"{CHANGES}{{<here>, change="accepted", policy="since_7_2"}}"#))
                ),
                "buffers",
            )
            .thresholds("green", &[("blue", 1.0)])
            .at_the_end()
            .no_value(NOT_MEASURED),
        Panel::stat("An upgrade would refuse", "Buffers that a host accepted and that the newest kernel refuses. Released kernels accept none of these; a kernel whose rule was patched out does.")
            .size(4, 4)
            .query(
                &format!(
                    "({}) or 0 * ({judged})",
                    standing("", &format!(r#"{CHANGES}{{<here>, change="refused", policy="since_7_2"}}"#))
                ),
                "buffers",
            )
            .thresholds("green", &[("red", 1.0)])
            .at_the_end()
            .no_value(NOT_MEASURED),
        Panel::stat("Not judged", "Buffers about which too little is known: the walk was incomplete, or the map of counts was full.")
            .size(4, 4)
            .query(&standing("", r#"pinscope_judged_buffers_total{<here>, judged="unjudged"}"#), "buffers")
            .thresholds("green", &[("orange", 1.0)])
            .at_the_end()
            .no_value(NOT_MEASURED),
        Panel::stat("Answers against the rule", "Answers of a running kernel that contradict its own rule: either the judgement is wrong, or the kernel is patched.")
            .size(4, 4)
            .query(&standing("", r#"pinscope_policy_answers_total{<here>, answer!="agreed"}"#), "answers")
            .thresholds("green", &[("orange", 1.0)])
            .at_the_end()
            .no_value("the rule of these kernels is unknown"),
        Panel::table("From kernel to kernel", "Buffers by the rule of their host and by the other rule: accepted by the host and refused by the other rule, and the reverse.")
            .size(12, 9)
            .query(&between("refused"), "")
            .query(&between("accepted"), "")
            .columns(&[("own", "Rule here"), ("policy", "Other rule"), ("Value #A", "Accepted, refused there"), ("Value #B", "Refused, accepted there")])
            .sorted_by("Accepted, refused there")
            .no_value("all rules give the same answers, or not measured on these kernels"),
        Panel::text("The rules", RULES).size(12, 9),
    ];
    Row { title: "What another kernel answers otherwise", panels }
}

fn who() -> Row {
    let columns = [
        ("instance", "Instance"),
        ("policy", "Other rule"),
        ("errno", "Errno"),
        ("class", "Class"),
        ("filesystem", "Filesystem"),
        ("Value #A", "Buffers"),
        ("Value #B", "Bytes"),
    ];
    let table = |title, description: &str, selector: &str, empty| {
        Panel::table(title, description)
            .size(12, 9)
            .query(&standing(BY, &format!("{CHANGES}{{{selector}}}")), "")
            .query(&standing(BY, &format!("{BYTES}{{{selector}}}")), "")
            .columns(&columns)
            .field("Instance", &[("links", to_host())])
            .field("Bytes", &[("unit", json!("bytes"))])
            .sorted_by("Buffers")
            .no_value(empty)
    };
    let panels = vec![
        table(
            "Accepted here, refused there",
            "Buffers that the host accepted and that the other rule would refuse with the errno, since the probes were attached.",
            REFUSED,
            "none would be refused, or not measured on these kernels",
        ),
        table(
            "Refused here, accepted there",
            "Buffers that the host refused by its rule with the errno and that the other rule accepts, since the probes were attached. Class `unknown`: refused for the length; nothing else is known about the buffer.",
            ACCEPTED,
            "none was refused that another kernel accepts, or not measured on these kernels",
        ),
        Panel::table("Accepted here, refused there, by workload", "Buffers that were accepted and that the other rule would refuse, since the probes were attached, with a description of the workload.")
            .size(24, 9)
            .query(
                r#"(sum by (job, instance, workload, policy) (max_over_time(pinscope_workload_policy_refusals_total{<work>, policy=~"$policy"}[<range>]) unless on (job, instance, policy) pinscope_kernel_policy{<here>}) > 0) * on (job, instance, workload) group_left (kind, unit, pod_uid, container_id) max by (job, instance, workload, kind, unit, pod_uid, container_id) (pinscope_workload_info{<work>})"#,
                "",
            )
            .columns(&[
                ("instance", "Instance"), ("workload", "Workload"), ("kind", "Kind"), ("unit", "Unit"),
                ("pod_uid", "Pod"), ("container_id", "Container"), ("policy", "Other rule"), ("Value", "Buffers"),
            ])
            .field("Instance", &[("links", to_host())])
            .sorted_by("Buffers")
            .no_value(NO_WORKLOADS),
    ];
    Row { title: "Who, and with which memory", panels }
}

fn over_time() -> Row {
    let judged = format!("rate({JUDGED}[<rate>])");
    let rate = |selector: &str| {
        or_none(&format!("sum by (policy) (rate({CHANGES}{{{selector}}}[<rate>]))"), "policy", &judged)
    };
    let panels = vec![
        Panel::lines("Accepted here, refused there", "Buffers per second, by the other rule.")
            .unit("cps")
            .query(&rate(REFUSED), "{{policy}}")
            .no_value(NOT_MEASURED),
        Panel::lines("Refused here, accepted there", "Buffers per second, by the other rule.")
            .unit("cps")
            .query(&rate(ACCEPTED), "{{policy}}")
            .no_value(NOT_MEASURED),
        Panel::lines("Accepted here, refused there, by workload", "Buffers per second of the ten workloads with the most, by the other rule.")
            .unit("cps")
            .query(
                r#"topk(10, sum by (workload, policy) (rate(pinscope_workload_policy_refusals_total{<living>, policy=~"$policy"}[<rate>]) unless on (job, instance, policy) pinscope_kernel_policy{<here>}))"#,
                "{{workload}} {{policy}}",
            )
            .no_value("none would be refused, or not measured by workload"),
    ];
    Row { title: "Over time", panels }
}

fn answers() -> Row {
    let panels = vec![
        Panel::areas("Buffers judged", "Buffers per second: clean (no rule concerns their memory, and the kernel accepted them), other, and unjudged.")
            .unit("cps")
            .query("sum by (judged) (rate(pinscope_judged_buffers_total{<here>}[<rate>]))", "{{judged}}")
            .no_value(NOT_MEASURED),
        Panel::lines("The kernels' answers against their own rule", "Buffers per second by whether the kernel followed its own rule. Disagreements show how far the judgement can be trusted.")
            .unit("cps")
            .query("sum by (answer) (rate(pinscope_policy_answers_total{<here>}[<rate>]))", "{{answer}}")
            .color("agreed", "green")
            .color(".*though.*", "red")
            .no_value("the rule of these kernels is unknown"),
        Panel::bars("Hosts by rule", "Instances by the rule of their kernel, as derived from its types.")
            .query("count by (policy) (pinscope_kernel_policy{<here>})", "{{policy}}")
            .no_value("the rule of these kernels is unknown"),
        Panel::table("By kernel", "Instances by kernel, and whether these kernels followed their own rule, since the probes were attached.")
            .query("count by (kernel) (pinscope_info{<here>})", "")
            .query(&answered("agreed"), "")
            .query(&answered("accepted_though_refused|refused_though_accepted"), "")
            .columns(&[("kernel", "Kernel"), ("Value #A", "Hosts"), ("Value #B", "Agreed"), ("Value #C", "Disagreed")])
            .no_value("none scraped"),
    ];
    Row { title: "How far the judgement holds", panels }
}

/// Answers by kernel, at their current values: a host may have run another kernel earlier in this time.
fn answered(answer: &str) -> String {
    format!(
        r#"sum by (kernel) (sum by (job, instance) (pinscope_policy_answers_total{{<here>, answer=~"{answer}"}}) * on (job, instance) group_left (kernel) max by (job, instance, kernel) (pinscope_info{{<here>}}))"#
    )
}
