//! Samples of what is measured on request.

use super::{Sample, Scrape};

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
