//! Bars: of CSS alone, each with its figure beside it.

use maud::{Markup, html};

use crate::{
    aggregate::Distribution,
    sink::{human, log2_bucket::log2_buckets},
};

/// Percent of a bar's length below which something would look like nothing.
const LEAST: f64 = 0.8;

/// A bar of `share` (0 to 1).
pub(super) fn bar(share: f64) -> Markup {
    let percent = share.clamp(0.0, 1.0) * 100.0;
    let percent = if percent > 0.0 { percent.max(LEAST) } else { 0.0 };
    html! { div class="track" { i style=(format!("width:{percent:.1}%")) {} } }
}

/// A distribution by powers of two under its title; `show` says a value. Lengths are shares of the largest.
pub(super) fn histogram(title: &str, distribution: Option<&Distribution>, show: fn(u64) -> String) -> Markup {
    let Some(distribution) = distribution else { return without(title, "not measured") };
    if distribution.count() == 0 {
        return without(title, "none seen yet");
    }
    let log2_buckets = log2_buckets(distribution);
    let most = log2_buckets.iter().map(|bucket| bucket.count).max().unwrap_or(0).max(1);
    html! {
        h3 { (title) span { (quantiles(distribution, show)) } }
        dl class="chart" {
            @for bucket in log2_buckets {
                dt {
                    @if bucket.first == bucket.last { (show(bucket.first)) }
                    @else { (show(bucket.first)) " – " (show(bucket.last)) }
                }
                dd { (bar(bucket.count as f64 / most as f64)) }
                dd class="n" { (human::count(bucket.count)) }
            }
        }
    }
}

fn without(title: &str, why: &str) -> Markup {
    html! { h3 { (title) span { (why) } } }
}

/// `p50 4.10 µs, p90 ...` of a distribution.
fn quantiles(distribution: &Distribution, show: fn(u64) -> String) -> String {
    let told = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)];
    let words = told.into_iter().filter_map(|(name, q)| Some(format!("{name} {}", show(distribution.quantile(q)?))));
    words.collect::<Vec<_>>().join(", ")
}
