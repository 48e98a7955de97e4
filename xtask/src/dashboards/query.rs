//! Building blocks of the dashboards' queries: short names for common parts, and zeros only where they are true.

/// For a panel without series, where the kernel does not support the measurement.
pub const NOT_MEASURED: &str = "not measured on this kernel";
/// For quantiles and shares, which are undefined without events.
pub const NOTHING_YET: &str = "none in this time, or not measured on this kernel";
/// For coverage, which is undefined without calls.
pub const NO_CALLS: &str = "no calls yet, or not measured";
/// For the amount that is registered now.
pub const REGISTERED: &str = "not asked for (--rings), or not measured on this kernel";
/// For figures by workload.
pub const NO_WORKLOADS: &str = "no workload seen, or not measured by workload on these instances";

/// Short names and their expansions.
const SHORT: [(&str, &str); 6] = [
    ("<here>", r#"job=~"$job", instance=~"$instance""#),
    ("<work>", r#"job=~"$job", instance=~"$instance", workload=~"$workload""#),
    // For rates: when a workload ends, its counts move to `ended` in one step, although they were counted under its own
    // name before.
    ("<living>", r#"job=~"$job", instance=~"$instance", workload=~"$workload", workload!="ended""#),
    ("<rate>", "$__rate_interval"),
    ("<range>", "$__range"),
    // Operations that install or change a table. The fourth operation is unregister.
    ("<install>", r#"operation=~"register|update|clone""#),
];

/// Expands the short names of an expression.
pub fn expand(expression: &str) -> String {
    SHORT.iter().fold(expression.to_owned(), |text, (short, long)| text.replace(short, long))
}

/// A quantile over the summed buckets of a histogram, grouped by `by` (empty, or labels that each end in a comma).
/// Without events there is none: NaN is filtered out.
pub fn quantile(q: &str, by: &str, selector: &str) -> String {
    format!("histogram_quantile({q}, sum by ({by}le) (rate({selector}[<rate>]))) >= 0")
}

/// Quotient of two sums. Without events there is none: NaN is filtered out.
pub fn share(part: &str, whole: &str) -> String {
    format!("({part}) / ({whole}) >= 0")
}

/// Share of calls, buffers and pins measured within `window`, grouped by `by` and by figure. Walks that ended because
/// of a writer of `mmap_lock` do not count as a loss.
pub fn coverage(by: &str, window: &str) -> String {
    let sum = |metric| format!(r#"sum by ({by}, figure) (increase({metric}{{<here>, figure!="walks"}}[{window}]))"#);
    format!("1 - {} / ({} > 0)", sum("pinscope_unmeasured_total"), sum("pinscope_measurable_total"))
}

/// `expression`. Where it has no series but `basis` has, a zero named `none`: nothing happened. Where `basis` is absent
/// too, the value is unknown, and there is no series.
pub fn or_none(expression: &str, label: &str, basis: &str) -> String {
    format!(
        r#"({expression}) or (label_replace(0 * sum({basis}), "{label}", "none", "", "") unless on () ({expression}))"#
    )
}
