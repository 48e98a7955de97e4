//! How the dashboards' queries are written: short names for what stands in most of them, and zeros only where they are true.

/// For a panel without a series: the kernel has not what it takes.
pub const NOT_MEASURED: &str = "not measured on this kernel";
/// For a quantile or a share, which there is none of nothing.
pub const NOTHING_YET: &str = "none in this time, or not measured on this kernel";
/// For a coverage, which there is none of without calls.
pub const NO_CALLS: &str = "no calls yet, or not measured";
/// For what is registered now.
pub const REGISTERED: &str = "not asked for (--rings), or not measured on this kernel";
/// For figures by workload.
pub const NO_WORKLOADS: &str = "no workload seen, or told by workload on no instance here";

/// The short names and what they stand for.
const SHORT: [(&str, &str); 6] = [
    ("<here>", r#"job=~"$job", instance=~"$instance""#),
    ("<work>", r#"job=~"$job", instance=~"$instance", workload=~"$workload""#),
    // For rates: what a workload that is gone had counted comes to `ended` in one step, and was under its own name before.
    ("<living>", r#"job=~"$job", instance=~"$instance", workload=~"$workload", workload!="ended""#),
    ("<rate>", "$__rate_interval"),
    ("<range>", "$__range"),
    // The functions that install or change a table; unregister is the fourth operation.
    ("<install>", r#"operation=~"register|update|clone""#),
];

/// An expression as Grafana takes it.
pub fn expand(expression: &str) -> String {
    SHORT.iter().fold(expression.to_owned(), |text, (short, long)| text.replace(short, long))
}

/// A quantile over the summed buckets of a histogram, kept apart by `by` (empty, or labels each with a comma behind). Of
/// nothing there is none: the NaN is left out.
pub fn quantile(q: &str, by: &str, selector: &str) -> String {
    format!("histogram_quantile({q}, sum by ({by}le) (rate({selector}[<rate>]))) >= 0")
}

/// One sum by another. Of nothing there is no share: the NaN is left out.
pub fn share(part: &str, whole: &str) -> String {
    format!("({part}) / ({whole}) >= 0")
}

/// The share of calls, buffers and pins that was measured within `window`, by `by` and by figure. Walks that a writer of
/// `mmap_lock` ended are no loss.
pub fn coverage(by: &str, window: &str) -> String {
    let sum = |metric| format!(r#"sum by ({by}, figure) (increase({metric}{{<here>, figure!="walks"}}[{window}]))"#);
    format!("1 - {} / ({} > 0)", sum("pinscope_unmeasured_total"), sum("pinscope_measurable_total"))
}

/// `expression`, and where it has no series a zero named `none`, provided that `basis` is counted: then nothing is known to
/// have happened. Where `basis` is absent too, it is unknown, and there is no series.
pub fn or_none(expression: &str, label: &str, basis: &str) -> String {
    format!(
        r#"({expression}) or (label_replace(0 * sum({basis}), "{label}", "none", "", "") unless on () ({expression}))"#
    )
}
