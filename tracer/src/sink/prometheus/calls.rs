//! Samples of calls, of what they touch and of the books over them; and the small shapes that many metrics have.

use tracer_ebpf::operation::Operation;

use super::{Sample, Scrape};
use crate::{
    aggregate::{Backing, Distribution, OperationBooks, PartBooks, Walks},
    decode::PARTIAL,
};

pub(super) fn outcome(ok: bool) -> &'static str {
    if ok { "ok" } else { "failed" }
}

pub(super) fn flag<'a>(labels: &[&'a str], value: bool) -> Sample<'a> {
    Sample::count(labels, u64::from(value))
}

pub(super) fn number<'a>(value: Option<u64>) -> Vec<Sample<'a>> {
    value.map(|value| Sample::count(&[], value)).into_iter().collect()
}

pub(super) fn ratio<'a>(value: Option<f64>) -> Vec<Sample<'a>> {
    value.map(|value| Sample::number(&[], value)).into_iter().collect()
}

pub(super) fn coverage<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let figures = scrape.snapshot.books.figures.by_figure();
    figures.filter_map(|(figure, of)| Some(Sample::number(&[figure], of.coverage?))).collect()
}

pub(super) fn unmeasured<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let figures = scrape.snapshot.books.figures.by_figure();
    figures.map(|(figure, of)| Sample::count(&[figure], of.missed)).collect()
}

pub(super) fn measurable<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let figures = scrape.snapshot.books.figures.by_figure();
    figures.map(|(figure, of)| Sample::count(&[figure], of.measured.saturating_add(of.missed))).collect()
}

/// One sample where any probe counts calls.
pub(super) fn if_measured<'a>(scrape: &Scrape<'_>, sample: impl FnOnce() -> Sample<'a>) -> Vec<Sample<'a>> {
    let operations = &scrape.snapshot.books.operations;
    let measured = operations.iter().any(OperationBooks::is_counted);
    measured.then(sample).into_iter().collect()
}

pub(super) fn distribution(distribution: Option<&Distribution>) -> Vec<Sample<'_>> {
    distribution.map(|distribution| Sample::distribution(&[], distribution)).into_iter().collect()
}

/// Success is there from the start, so that the first rate over it is right.
pub(super) fn registrations<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let snapshot = scrape.snapshot;
    let operations = snapshot.operations().iter();
    operations
        .flat_map(|operation| {
            let name = operation.operation.name();
            let failed = operation.results.iter().filter(|result| !["ok", PARTIAL].contains(&result.result.as_str()));
            let failed = failed.map(|result| Sample::count(&[name, &result.result], result.count));
            let partial = may_be_partial(name).then(|| Sample::count(&[name, PARTIAL], operation.partial));
            [Sample::count(&[name, "ok"], operation.ok)].into_iter().chain(partial).chain(failed)
        })
        .collect()
}

fn may_be_partial(operation: &str) -> bool {
    operation == Operation::Update.name()
}

/// Why partial updates stopped where they did. The most frequent reason is there from the start.
pub(super) fn partial<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    const USUAL: &str = "EFAULT";
    let operations = scrape.snapshot.operations().iter();
    let updates = operations.filter(|operation| may_be_partial(operation.operation.name()));
    let reasons = updates.flat_map(|operation| {
        let reasons = &operation.partial_reasons;
        let none = !reasons.iter().any(|reason| reason.result == USUAL);
        let usual = none.then(|| Sample::count(&[USUAL], 0));
        usual.into_iter().chain(reasons.iter().map(|reason| Sample::count(&[&reason.result], reason.count)))
    });
    reasons.collect()
}

pub(super) fn durations<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let operations = scrape.snapshot.operations().iter();
    let timed = operations.filter_map(|operation| Some((operation.operation.name(), operation.duration.as_ref()?)));
    timed
        .flat_map(|(name, duration)| {
            let partial = may_be_partial(name).then(|| Sample::distribution(&[name, PARTIAL], &duration.partial));
            [
                Sample::distribution(&[name, outcome(true)], &duration.ok),
                Sample::distribution(&[name, outcome(false)], &duration.failed),
            ]
            .into_iter()
            .chain(partial)
        })
        .collect()
}

pub(super) fn backings<'a>(scrape: &Scrape<'a>, of: fn(&Backing) -> u64) -> Vec<Sample<'a>> {
    let backings = scrape.snapshot.backings.iter().flatten();
    backings
        .map(|backing| {
            let labels = [
                backing.class.name(),
                backing.filesystem.as_deref().unwrap_or_default(),
                if backing.shared { "true" } else { "false" },
                if backing.writable { "true" } else { "false" },
                outcome(backing.ok),
            ];
            Sample::count(&labels, of(backing))
        })
        .collect()
}

pub(super) fn faults<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let faults = scrape.snapshot.faults.iter();
    faults
        .flat_map(|faults| [Sample::count(&["minor"], faults.minor), Sample::count(&["major"], faults.major)])
        .collect()
}

pub(super) fn unregisters<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let others = scrape.snapshot.unregisters.iter();
    others
        .flat_map(|others| {
            let by = [("cleanup", others.internal), ("ring_exit", others.ring_exit)];
            by.into_iter().filter_map(|(by, count)| Some(Sample::count(&[by], count?)))
        })
        .collect()
}

pub(super) fn walks<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let walks = scrape.snapshot.walks.iter().flat_map(Walks::by_outcome);
    walks.map(|(outcome, count)| Sample::count(&[outcome], count)).collect()
}

pub(super) fn walk_seconds<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    ratio(scrape.snapshot.walks.as_ref().map(|walks| walks.nanoseconds as f64 / 1e9))
}

pub(super) fn operations<'a>(scrape: &Scrape<'a>, of: fn(&OperationBooks) -> Option<u64>) -> Vec<Sample<'a>> {
    let books = scrape.snapshot.books.operations.iter();
    books.filter_map(|books| Some(Sample::count(&[books.operation.name()], of(books)?))).collect()
}

pub(super) fn parts<'a>(scrape: &Scrape<'a>) -> impl Iterator<Item = (&'static str, &'a PartBooks)> + use<'a> {
    let books = &scrape.snapshot.books;
    [("buffer", &books.buffers), ("pin", &books.pins)]
        .into_iter()
        .filter_map(|(name, books)| Some((name, books.as_ref()?)))
}

pub(super) fn hooks<'a>(
    scrape: &Scrape<'a>,
    operation: fn(&OperationBooks) -> Option<u64>,
    part: fn(&PartBooks) -> u64,
) -> Vec<Sample<'a>> {
    let parts = parts(scrape).map(|(name, books)| Sample::count(&[name], part(books)));
    operations(scrape, operation).into_iter().chain(parts).collect()
}

pub(super) fn in_flight<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let books = scrape.snapshot.books.operations.iter();
    let operations = books.filter_map(|books| Some((books.operation.name(), books.in_flight?)));
    let parts = parts(scrape).map(|(name, books)| (name, books.in_flight));
    operations.chain(parts).map(|(name, open)| Sample::number(&[name], open as f64)).collect()
}

pub(super) fn skipped<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    scrape.snapshot.skipped.iter().map(|skipped| Sample::count(&[&skipped.program], skipped.runs)).collect()
}

pub(super) fn losses<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let causes = scrape.snapshot.lost.by_cause().into_iter();
    causes.map(|(name, _, count)| Sample::count(&[name], count)).collect()
}

pub(super) fn probes<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let probes = scrape.service.probes.iter();
    probes.map(|probe| flag(&[&probe.program, &probe.function, &probe.kind], probe.attached)).collect()
}

pub(super) fn info<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let service = scrape.service;
    vec![flag(&[&service.context.origin.version, &service.context.origin.kernel, &service.context.origin.mode], true)]
}
