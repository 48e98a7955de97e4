//! By workload: units, containers and pods, most calls first.

use std::cmp::Reverse;

use maud::{Markup, html};
use tracer_ebpf::workload::Slot;

use super::card;
use crate::{
    aggregate::{
        Snapshot,
        workloads::{Row, Workloads},
    },
    sink::human,
};

/// Workloads shown; the others are counted.
const WORKLOADS: usize = 12;

/// Where calls are counted by workload.
pub(super) fn workloads(snapshot: &Snapshot) -> Markup {
    let Some(workloads) = &snapshot.workloads else { return html! {} };
    let mut rows: Vec<_> = workloads
        .rows
        .iter()
        .filter(|row| row.calls() > 0 || row.registered.is_some_and(|share| share.buffers > 0))
        .collect();
    rows.sort_by_key(|row| (row.workload.kind.is_many(), Reverse(row.calls())));
    let more = rows.len().saturating_sub(WORKLOADS) as u64;
    let pinned = rows.iter().any(|row| row.registered.is_some());
    let body = html! {
        @if rows.is_empty() { p class="soft" { "None seen yet." } } @else {
            div class="scroll" {
                table {
                    thead { tr { th { "workload" } th { "calls" } th class="wide" { "not ok" } th { "bytes" } @if pinned { th { "pinned now" } } th { "mean time" } } }
                    tbody { @for row in rows.into_iter().take(WORKLOADS) { (line(workloads, row)) } }
                }
            }
            @if more > 0 { p class="soft" { "and " (human::count(more)) " more" } }
        }
    };
    card("", "Workloads", &body)
}

fn line(workloads: &Workloads, row: &Row) -> Markup {
    let unknown = || "unknown".to_owned();
    let timed = row.totals.durations().iter().copied().fold(0, u64::saturating_add);
    // Of calls that were all counted and not measured nothing is known.
    let measured = timed > 0 || !workloads.told.durations;
    let bytes = (workloads.told.buffers && measured).then(|| human::bytes(row.totals.get(Slot::Bytes)));
    let mean = row.totals.get(Slot::DurationSum).checked_div(timed).filter(|_| workloads.told.durations);
    html! {
        tr {
            td { (human::plain(&row.workload.name)) @if !row.workload.kind.is_many() { small { (row.workload.kind.name()) } } }
            td { (human::count(row.calls())) }
            td class="wide" { (human::count(row.totals.get(Slot::Failed).saturating_add(row.totals.get(Slot::Partial)))) }
            td { (bytes.unwrap_or_else(unknown)) }
            @if let Some(share) = row.registered { td { (human::bytes(share.pinned)) } }
            td { (mean.map_or_else(unknown, human::duration)) }
        }
    }
}
