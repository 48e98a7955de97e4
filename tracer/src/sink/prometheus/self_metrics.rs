//! Samples of what is registered now, and of pinscope itself: its process, its programs, its health.

use std::borrow::Cow;

use super::{Sample, Scrape};
use crate::{
    aggregate::{Snapshot, registered::Registered},
    figure::{Degree, Lack},
    probe::health::Status,
    sample::{Runs, SelfUsage},
};

pub(super) fn registered<'a>(scrape: &Scrape<'a>, of: fn(&Registered) -> u64) -> Vec<Sample<'a>> {
    scrape.snapshot.registered.iter().map(|registered| Sample::count(&[], of(registered))).collect()
}

/// Why what is registered may be more.
pub(super) fn causes<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let causes = scrape.snapshot.registered.iter().flat_map(Registered::causes);
    causes.map(|(cause, is_so)| Sample::count(&[cause], is_so.into())).collect()
}

pub(super) fn process<'a>(scrape: &Scrape<'a>, of: fn(&SelfUsage) -> Option<f64>) -> Vec<Sample<'a>> {
    let own = scrape.snapshot.own.iter();
    own.filter_map(|own| Some(Sample::number(&[], of(own)?))).collect()
}

pub(super) fn runs<'a>(scrape: &Scrape<'a>, of: fn(&Runs) -> f64) -> Vec<Sample<'a>> {
    let runs = scrape.snapshot.runs.iter().flatten();
    runs.map(|(program, runs)| Sample::number(&[program], of(runs))).collect()
}

/// What the plan cannot give. What the kernel skipped is in the coverage: here its numbers would be labels.
pub(super) fn reasons(snapshot: &Snapshot) -> impl Iterator<Item = &Lack> {
    snapshot.figures.lacks().iter().filter(|lack| lack.degree != Degree::LowerBound)
}

/// What cannot be had, one reason each.
pub(super) fn degraded<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let sample = |lack: &'a Lack| Sample {
        labels: [Cow::Owned(lack.figures.names()), Cow::Borrowed(&*lack.reason)].into_iter().collect(),
        ..Sample::count(&[], 1)
    };
    reasons(scrape.snapshot).map(sample).collect()
}

/// 1 for the state that the probes are in, 0 for the others.
pub(super) fn health<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let now = scrape.service.health;
    [Status::Healthy, Status::Degraded, Status::Failed]
        .map(|status| Sample::count(&[status.name()], u64::from(status == now)))
        .into()
}

pub(super) fn build<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let service = scrape.service;
    vec![Sample::count(&[&service.context.origin.version, env!("PINSCOPE_GIT"), env!("PINSCOPE_EBPF_TOOLCHAIN")], 1)]
}
