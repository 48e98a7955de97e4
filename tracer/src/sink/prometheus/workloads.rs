//! Samples by workload.

use tracer_ebpf::workload::{REFUSED, Slot};

use super::{Sample, Scrape, Value, calls::outcome};
use crate::{
    aggregate::{
        registered::Share,
        workloads::{Row, WorkloadFigures, Workloads},
    },
    decode::{PARTIAL, workload::Runtime},
};

fn workloads<'a>(scrape: &Scrape<'a>) -> Option<&'a Workloads> {
    scrape.snapshot.workloads.as_ref()
}

/// The rows, where what is asked for is told.
fn rows<'a>(scrape: &Scrape<'a>, told: fn(&WorkloadFigures) -> bool) -> impl Iterator<Item = &'a Row> + use<'a> {
    workloads(scrape).filter(|workloads| told(&workloads.told)).into_iter().flat_map(|workloads| &workloads.rows)
}

/// One number of each row.
fn numbers<'a>(scrape: &Scrape<'a>, told: fn(&WorkloadFigures) -> bool, of: impl Fn(&Row) -> f64) -> Vec<Sample<'a>> {
    rows(scrape, told).map(|row| Sample::number(&[&row.workload.name], of(row))).collect()
}

/// Several counts of each row, by one more label.
fn counts<'a, const N: usize>(
    scrape: &Scrape<'a>,
    told: fn(&WorkloadFigures) -> bool,
    of: impl Fn(&Row) -> [(&'static str, u64); N],
) -> Vec<Sample<'a>> {
    let rows = rows(scrape, told);
    rows.flat_map(|row| of(row).map(|(label, count)| Sample::count(&[&row.workload.name, label], count))).collect()
}

pub(super) fn info<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    rows(scrape, |_| true)
        .map(|row| {
            let workload = &row.workload;
            let labels = [
                workload.name.as_str(),
                workload.kind.name(),
                &workload.unit,
                &workload.slice,
                &workload.pod_uid,
                &workload.container_id,
                workload.runtime.map_or("", Runtime::name),
            ];
            Sample::count(&labels, 1)
        })
        .collect()
}

pub(super) fn registrations<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    counts(
        scrape,
        |_| true,
        |row| [Slot::Succeeded, Slot::Partial, Slot::Failed].map(|slot| (outcome_of(slot), row.totals.get(slot))),
    )
}

fn outcome_of(slot: Slot) -> &'static str {
    match slot {
        Slot::Partial => PARTIAL,
        slot => outcome(slot == Slot::Succeeded),
    }
}

pub(super) fn durations<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let rows = rows(scrape, |told| told.durations);
    rows.map(|row| histogram(row, row.totals.durations(), row.totals.get(Slot::DurationSum))).collect()
}

pub(super) fn vmas<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let rows = rows(scrape, |told| told.walk);
    rows.map(|row| histogram(row, row.totals.vmas(), row.totals.get(Slot::VmasSum))).collect()
}

fn histogram<'a>(row: &'a Row, counts: &'a [u64], sum: u64) -> Sample<'a> {
    Sample { value: Value::Counts(counts, sum), ..Sample::number(&[&row.workload.name], 0.0) }
}

pub(super) fn pin_seconds<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    numbers(scrape, |told| told.pins, |row| row.totals.get(Slot::PinNanoseconds) as f64 / 1e9)
}

pub(super) fn buffers<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    numbers(scrape, |told| told.buffers, |row| row.totals.get(Slot::Buffers) as f64)
}

pub(super) fn bytes<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    numbers(scrape, |told| told.buffers, |row| row.totals.get(Slot::Bytes) as f64)
}

pub(super) fn refused_bytes<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    numbers(scrape, |told| told.buffers, |row| row.totals.get(Slot::RefusedBytes) as f64)
}

pub(super) fn faults<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    counts(
        scrape,
        |told| told.pins,
        |row| [("minor", row.totals.get(Slot::MinorFaults)), ("major", row.totals.get(Slot::MajorFaults))],
    )
}

pub(super) fn installations<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    counts(
        scrape,
        |told| told.requests,
        |row| [("before", row.totals.get(Slot::BeforeRequests)), ("after", row.totals.get(Slot::AfterRequests))],
    )
}

pub(super) fn switches<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    numbers(scrape, |told| told.requests, |row| row.totals.get(Slot::Switches) as f64)
}

pub(super) fn refusals<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    counts(scrape, |told| told.walk, |row| REFUSED.map(|policy| (policy.name(), row.totals.refused(policy))))
}

pub(super) fn registered<'a>(scrape: &Scrape<'a>, of: fn(&Share) -> u64) -> Vec<Sample<'a>> {
    let rows = rows(scrape, |_| true);
    rows.filter_map(|row| Some(Sample::count(&[&row.workload.name], of(row.registered.as_ref()?)))).collect()
}

pub(super) fn own<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let own = |workloads: &Workloads| workloads.rows.iter().filter(|row| !row.workload.kind.is_many()).count() as u64;
    workloads(scrape).map(|workloads| Sample::count(&[], own(workloads))).into_iter().collect()
}

pub(super) fn folded<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let folded = workloads(scrape).map(|workloads| workloads.folded);
    let causes =
        folded.iter().flat_map(|folded| [("cap", folded.cap), ("gone", folded.gone), ("unnamed", folded.unnamed)]);
    causes.map(|(cause, count)| Sample::count(&[cause], count)).collect()
}

pub(super) fn folders_cut<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    workloads(scrape).map(|workloads| Sample::count(&[], workloads.folders_cut.into())).into_iter().collect()
}

pub(super) fn unattributed<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    workloads(scrape).map(|workloads| Sample::count(&[], workloads.unattributed)).into_iter().collect()
}
