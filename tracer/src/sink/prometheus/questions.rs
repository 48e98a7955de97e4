//! Samples of what the answers rest on: rings, and buffers under each policy.

use std::{borrow::Cow, collections::BTreeMap};

use tracer_ebpf::policy::Policy;

use super::{Sample, Scrape, calls::outcome};
use crate::{
    aggregate::{ByRequests, Distribution, Judged, Rings},
    answer::{Agreement, State, Verdict, running},
    decode::result_name,
};

/// 1 for the state that each question is in, 0 for the others.
pub(super) fn states<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let all = scrape.answers.iter().flat_map(|answer| State::NAMES.map(|name| (answer, name)));
    all.map(|(answer, name)| Sample::count(&[answer.id, name], u64::from(answer.state.name() == name))).collect()
}

/// A distribution over rings.
pub(super) fn rings<'a>(scrape: &Scrape<'a>, of: fn(&Rings) -> &Distribution) -> Vec<Sample<'a>> {
    scrape.snapshot.rings.iter().map(|rings| Sample::distribution(&[], of(rings))).collect()
}

pub(super) fn installations<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let told = scrape.snapshot.installations.iter().flat_map(|told| told.kinds.iter());
    told.flat_map(|(kind, counts)| {
        by_requests(counts).map(|(requests, count)| Sample::count(&[requests, kind.name()], count))
    })
    .collect()
}

pub(super) fn emptying_updates<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let told = scrape.snapshot.installations.iter().flat_map(|told| by_requests(told.emptying_updates));
    told.map(|(requests, count)| Sample::count(&[requests], count)).collect()
}

fn by_requests(counts: ByRequests) -> [(&'static str, u64); 2] {
    [("before", counts.before_requests), ("after", counts.after_requests)]
}

pub(super) fn judged<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let judgements = scrape.snapshot.judgements.iter();
    judgements
        .flat_map(|judgements| {
            let others = judgements.others.iter().map(|judged| judged.buffers).fold(0, u64::saturating_add);
            [
                Sample::count(&["clean"], judgements.clean),
                Sample::count(&["other"], others),
                Sample::count(&["rolled_back"], judgements.rolled_back),
                Sample::count(&["unjudged"], judgements.unjudged),
            ]
        })
        .collect()
}

/// Labels of a row in the table's order.
type Labels<'a> = [Cow<'a, str>; 5];

/// What each policy would refuse.
pub(super) fn refusals<'a>(scrape: &Scrape<'a>, of: fn(&Judged) -> u64) -> Vec<Sample<'a>> {
    by_policy(scrape, of, |judged, policy| {
        let errno = policy.refuses(judged.traits);
        let outcome = outcome(judged.errno == 0);
        policy.is_sure_to_refuse(judged.traits).then(|| {
            [policy.name().into(), name(errno), judged.class_name().into(), filesystem(judged), outcome.into()]
        })
    })
}

/// What each policy answers otherwise than this kernel did.
pub(super) fn changes<'a>(scrape: &Scrape<'a>, of: fn(&Judged) -> u64) -> Vec<Sample<'a>> {
    let running = scrape.snapshot.judgements.as_ref().and_then(running);
    by_policy(scrape, of, |judged, policy| {
        let change = Verdict::of(judged, running, policy)?;
        let errno = match change {
            Verdict::Refused => policy.refuses(judged.traits),
            Verdict::Accepted => judged.errno,
        };
        Some([policy.name().into(), change.name().into(), name(errno), judged.class_name().into(), filesystem(judged)])
    })
}

/// Sums over all processes: theirs are too many for labels.
fn by_policy<'a>(
    scrape: &Scrape<'a>,
    of: fn(&Judged) -> u64,
    labels: impl Fn(&'a Judged, Policy) -> Option<Labels<'a>>,
) -> Vec<Sample<'a>> {
    let others = scrape.snapshot.judgements.iter().flat_map(|judgements| &judgements.others);
    let mut sums: BTreeMap<Labels<'_>, u64> = BTreeMap::new();
    for judged in others {
        for labels in Policy::ALL.into_iter().filter_map(|policy| labels(judged, policy)) {
            let sum = sums.entry(labels).or_default();
            *sum = sum.saturating_add(of(judged));
        }
    }
    let sums = sums.into_iter();
    sums.map(|(labels, sum)| Sample { labels: labels.into_iter().collect(), ..Sample::count(&[], sum) }).collect()
}

fn filesystem(judged: &Judged) -> Cow<'_, str> {
    judged.filesystem.as_deref().unwrap_or_default().into()
}

/// An errno's name; `errno` is positive.
fn name<'a>(errno: i32) -> Cow<'a, str> {
    result_name(-i64::from(errno)).into()
}

pub(super) fn kernel_policy<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let policy = scrape.snapshot.judgements.as_ref().and_then(|judgements| judgements.kernel_policy);
    policy.iter().map(|policy| Sample::count(&[policy.name()], 1)).collect()
}

/// Buffers that judge no rule.
pub(super) fn unjudging<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let agreement = scrape.snapshot.judgements.as_ref().and_then(Agreement::of);
    let told = agreement.iter().flat_map(|agreement| {
        [Sample::count(&["unserved"], agreement.unserved), Sample::count(&["undecided"], agreement.undecided)]
    });
    told.collect()
}

pub(super) fn agreement<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let agreement = scrape.snapshot.judgements.as_ref().and_then(Agreement::of);
    agreement
        .iter()
        .flat_map(|agreement| {
            [
                Sample::count(&["agreed"], agreement.agreed),
                Sample::count(&["accepted_though_refused"], agreement.accepted),
                Sample::count(&["refused_though_accepted"], agreement.refused),
            ]
        })
        .collect()
}
