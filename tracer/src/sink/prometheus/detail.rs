//! Samples of what is measured on request.

use super::{Sample, Scrape, calls};

pub(super) fn waits<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let locks = scrape.snapshot.locks.iter();
    locks
        .flat_map(|locks| {
            [Sample::distribution(&["read"], &locks.read.wait), Sample::distribution(&["write"], &locks.write.wait)]
        })
        .collect()
}

pub(super) fn registrations<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let locks = scrape.snapshot.locks.iter();
    locks
        .flat_map(|locks| {
            [("all", locks.registrations), ("read", locks.readers), ("write", locks.writers), ("waited", locks.waited)]
        })
        .map(|(lock, count)| Sample::count(&[lock], count))
        .collect()
}

pub(super) fn phases<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let Some(phases) = &scrape.snapshot.phases else { return Vec::new() };
    let part = |part: &Option<crate::aggregate::Part>| part.as_ref().map(|part| part.ns);
    let parts = [
        ("pin_faults", part(&phases.faults)),
        ("pin_lookups", part(&phases.lookups)),
        ("pin_other", Some(phases.pin_other_ns)),
        ("accounting", part(&phases.accounting)),
        ("rest_other", Some(phases.rest_other_ns)),
    ];
    parts.into_iter().filter_map(|(phase, ns)| Some(Sample::number(&[phase], ns? as f64 / 1e9))).collect()
}

pub(super) fn call_seconds<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let calls = scrape.snapshot.calls.iter().flatten();
    calls
        .flat_map(|times| {
            let parts =
                [("waiting", Some(times.wait_ns)), ("function", Some(times.function_ns)), ("after", times.after_ns)];
            parts
                .map(|(part, ns)| Some(Sample::number(&[times.operation.name(), part], ns? as f64 / 1e9)))
                .into_iter()
                .flatten()
        })
        .collect()
}

pub(super) fn timed_calls<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let calls = scrape.snapshot.calls.iter().flatten();
    calls.map(|times| Sample::count(&[times.operation.name()], times.calls)).collect()
}

pub(super) fn oldest_call<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let calls = scrape.snapshot.under_way.iter().filter(|calls| calls.unseen_ends == 0);
    calls.map(|calls| Sample::number(&[], calls.oldest_ns.unwrap_or(0) as f64 / 1e9)).collect()
}

pub(super) fn lock_failures<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let Some(locks) = &scrape.snapshot.locks else { return Vec::new() };
    let kinds = [("trylock", locks.failed_trylocks), ("killed", locks.killed_waits)];
    kinds.map(|(kind, count)| Sample::count(&[kind], count)).into()
}

pub(super) fn locks_complete<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let complete = scrape.snapshot.locks.as_ref().map(|locks| u64::from(locks.complete));
    calls::number(complete)
}

pub(super) fn phase_registrations<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let Some(phases) = &scrape.snapshot.phases else { return Vec::new() };
    let times = [("known", phases.registrations), ("left_out", phases.left_out)];
    times.map(|(times, count)| Sample::count(&[times], count)).into()
}

pub(super) fn phase_missed<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    calls::number(scrape.snapshot.phases.as_ref().map(|phases| phases.missed))
}

/// Not the fast ones: a difference of two counts that are read while they move can go back.
pub(super) fn phase_pins<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let Some(phases) = &scrape.snapshot.phases else { return Vec::new() };
    let slow = phases.slow.as_ref().map(|slow| Sample::count(&["slow"], slow.pins));
    [Sample::count(&["all"], phases.pin.calls)].into_iter().chain(slow).collect()
}

pub(super) fn slow_pin_seconds<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let slow = scrape.snapshot.phases.as_ref().and_then(|phases| phases.slow.as_ref());
    slow.map(|slow| Sample::number(&[], slow.ns as f64 / 1e9)).into_iter().collect()
}
