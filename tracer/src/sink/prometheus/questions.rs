//! Samples of what the answers rest on: rings, and buffers under each policy.

use std::collections::BTreeMap;

use tracer_ebpf::policy::Policy;

use super::{Sample, Scrape, calls::outcome};
use crate::{
    aggregate::{Distribution, Judged, Rings},
    answer::{Agreement, State},
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
    let told = scrape.snapshot.installations.iter();
    told.flat_map(|told| {
        [Sample::count(&["before"], told.before_requests), Sample::count(&["after"], told.after_requests)]
    })
    .collect()
}

pub(super) fn judged<'a>(scrape: &Scrape<'a>) -> Vec<Sample<'a>> {
    let judgements = scrape.snapshot.judgements.iter();
    judgements
        .flat_map(|judgements| {
            let others = judgements.others.iter().map(|judged| judged.buffers).fold(0, u64::saturating_add);
            [
                Sample::count(&["clean"], judgements.clean),
                Sample::count(&["other"], others),
                Sample::count(&["unjudged"], judgements.unjudged),
            ]
        })
        .collect()
}

/// What each policy would refuse, over all processes: theirs are too many for labels.
pub(super) fn refusals<'a>(scrape: &Scrape<'a>, of: fn(&Judged) -> u64) -> Vec<Sample<'a>> {
    let others = scrape.snapshot.judgements.iter().flat_map(|judgements| &judgements.others);
    let mut sums: BTreeMap<(&str, i32, &str, &str, &str), u64> = BTreeMap::new();
    for judged in others {
        for policy in Policy::ALL {
            let errno = policy.refuses(judged.traits);
            if errno != 0 {
                let filesystem = judged.filesystem.as_deref().unwrap_or_default();
                let outcome = outcome(judged.errno == 0);
                let sum = sums.entry((policy.name(), errno, judged.class, filesystem, outcome)).or_default();
                *sum = sum.saturating_add(of(judged));
            }
        }
    }
    let sums = sums.into_iter();
    sums.map(|((policy, errno, class, filesystem, outcome), sum)| {
        let errno = result_name(-i64::from(errno)).into();
        let labels = [policy.into(), errno, class.into(), filesystem.into(), outcome.into()];
        Sample { labels: labels.into_iter().collect(), ..Sample::count(&[], sum) }
    })
    .collect()
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
