//! Buffers under each kernel's rule, beside what the running kernel answered (Q4).

use std::collections::BTreeMap;

use tracer_ebpf::{
    backing::Class,
    policy::{Policy, Traits},
};

use super::evidence::sum;
use crate::{
    aggregate::{Judged, Judgements},
    decode::Pid,
};

/// The errnos by which a kernel refuses a mapping; any other says nothing about its rule.
const REFUSALS: [i32; 3] = [EFAULT, 22, 95];
/// What a kernel answers too where it could not bring the memory in, which is no matter of a rule.
const EFAULT: i32 = 14;

/// The rule in words.
pub(super) fn words(policy: Policy) -> &'static str {
    match policy {
        Policy::Before65 => "before 6.5",
        Policy::SingleSource => "6.3 and 6.4",
        Policy::AsProposed => "as proposed",
        Policy::Since65 => "6.5 to 7.1",
        Policy::Since72 => "7.2 and later",
    }
}

/// What one rule would refuse, beside what every kernel does.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) buffers: u64,
    pub(super) bytes: u64,
    /// Buffers by errno.
    pub(super) errnos: BTreeMap<i32, u64>,
    /// Processes, where they are kept apart.
    pub(super) processes: u64,
}

/// Buffers that every kernel refuses, whatever its rule: of memory that may not be written to, with a hole, or on DAX.
pub(super) fn everywhere(judgements: &Judgements) -> u64 {
    let hit = judgements.others.iter().filter(|judged| judged.traits.refused_everywhere());
    hit.map(|judged| judged.buffers).fold(0, u64::saturating_add)
}

pub(super) fn refused(judgements: &Judgements, policy: Policy) -> Refused {
    let mut refused = Refused::default();
    let mut pids: Vec<Pid> = Vec::new();
    for judged in judgements.others.iter().filter(|judged| !judged.traits.refused_everywhere()) {
        let errno = policy.refuses(judged.traits);
        if policy.is_sure_to_refuse(judged.traits) {
            refused.buffers = refused.buffers.saturating_add(judged.buffers);
            refused.bytes = refused.bytes.saturating_add(judged.bytes);
            let count = refused.errnos.entry(errno).or_default();
            *count = count.saturating_add(judged.buffers);
            pids.extend(judged.pid);
        }
    }
    pids.sort_unstable();
    pids.dedup();
    refused.processes = pids.len() as u64;
    refused
}

/// The policy that the running kernel is under.
pub fn running(judgements: &Judgements) -> Option<Policy> {
    judgements.kernel_policy
}

/// The kernel's answers, held against the rule that it is under.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Accepted and judged so, or refused and judged so.
    pub agreed: u64,
    /// Of those, refused with another errno.
    pub other_errno: u64,
    /// Accepted, and judged refused.
    pub accepted: u64,
    /// Refused, and judged accepted.
    pub refused: u64,
    /// Refused with `EFAULT`, which the rule does not explain: the memory could not be brought in. It judges no rule.
    pub unserved: u64,
    /// What the rule says of them is not told by what a walk sees: private mappings under DAX.
    pub undecided: u64,
}

impl Agreement {
    /// Answers that the rule does not explain.
    pub fn disagreed(&self) -> u64 {
        self.accepted.saturating_add(self.refused)
    }

    /// `None` where the kernel's rule is not known.
    pub fn of(judgements: &Judgements) -> Option<Self> {
        let policy = running(judgements)?;
        let mut agreement = Self { agreed: judgements.clean, ..Self::default() };
        for judged in &judgements.others {
            let wanted = policy.refuses(judged.traits);
            let count = match (judged.errno, wanted) {
                (errno, _) if errno != 0 && !REFUSALS.contains(&errno) => continue,
                _ if !policy.decides(judged.traits) => &mut agreement.undecided,
                (0, 0) => &mut agreement.agreed,
                (0, _) => &mut agreement.accepted,
                (EFAULT, wanted) if wanted != EFAULT => &mut agreement.unserved,
                (_, 0) => &mut agreement.refused,
                (errno, _) => {
                    if errno != wanted {
                        agreement.other_errno = agreement.other_errno.saturating_add(judged.buffers);
                    }
                    &mut agreement.agreed
                }
            };
            *count = count.saturating_add(judged.buffers);
        }
        Some(agreement)
    }
}

/// What another rule makes of buffers that this kernel accepted or refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Accepted here, refused there.
    Refused,
    /// Refused here by a rule, accepted there.
    Accepted,
}

impl Verdict {
    /// The name used in every output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Accepted => "accepted",
        }
    }

    /// `None` where `policy` answers as this kernel did, whose own rule is `running`.
    pub fn of(judged: &Judged, running: Option<Policy>, policy: Policy) -> Option<Self> {
        // Under its own rule a kernel's answer does not change; where it does not follow the rule, that is a disagreement.
        if running == Some(policy) {
            return None;
        }
        if !policy.decides(judged.traits) || running.is_some_and(|own| !own.decides(judged.traits)) {
            return None;
        }
        let there = policy.refuses(judged.traits);
        if judged.errno == 0 {
            return (there != 0).then_some(Self::Refused);
        }
        // A refusal that the running rule does not explain (a page beyond the end of its file) is no rule's: none lifts it.
        let by_rule = REFUSALS.contains(&judged.errno)
            && match running {
                Some(rule) => rule.refuses(judged.traits) == judged.errno,
                None => judged.errno != EFAULT,
            };
        (there == 0 && by_rule).then_some(Self::Accepted)
    }
}

/// Buffers of one process that another rule answers otherwise than this kernel did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) pid: Option<Pid>,
    pub(super) comm: String,
    /// What lies behind them: the class, and the filesystem where it has one.
    pub(super) backing: String,
    /// The errno on this kernel, 0 where it accepted.
    pub(super) here: i32,
    /// The errno under the other rule.
    pub(super) there: i32,
    pub(super) buffers: u64,
}

/// Buffers that this kernel accepted and `policy` refuses, or the other way round; most buffers first.
pub(super) fn changes(judgements: &Judgements, policy: Policy) -> Vec<Change> {
    let running = running(judgements);
    let mut changes: Vec<Change> = Vec::new();
    for judged in judgements.others.iter().filter(|judged| Verdict::of(judged, running, policy).is_some()) {
        let change = Change {
            pid: judged.pid,
            comm: judged.comm.clone(),
            backing: backing(judged),
            here: judged.errno,
            there: policy.refuses(judged.traits),
            buffers: 0,
        };
        let same = |other: &&mut Change| Change { buffers: 0, ..(**other).clone() } == change;
        let found = changes.iter_mut().find(same);
        match found {
            Some(known) => known.buffers = known.buffers.saturating_add(judged.buffers),
            None => changes.push(Change { buffers: judged.buffers, ..change }),
        }
    }
    changes.sort_by(|a, b| b.buffers.cmp(&a.buffers).then(a.pid.cmp(&b.pid)));
    changes
}

/// `file ext4`, `anon next to another source`.
pub(super) fn backing(judged: &Judged) -> String {
    let filesystem = judged.filesystem.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
    // Its rule is about what lies side by side in one buffer.
    let others = if judged.traits.has(Traits::SEVERAL_SOURCES) { " next to another source" } else { "" };
    let length = if judged.traits.has(Traits::LARGE) { ", more than 1 GiB" } else { "" };
    let class = judged.class.map_or("unknown memory", Class::name);
    format!("{class}{filesystem}{others}{length}")
}

/// Buffers that were judged.
pub(super) fn judged(judgements: &Judgements) -> u64 {
    judgements.clean.saturating_add(sum(&judgements.others, |judged| judged.buffers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::fixture::{judged as row, judgements, shared_file};

    #[test]
    fn the_kernels_answers_are_held_against_its_rule() {
        let all = judgements(
            Policy::Since65,
            vec![
                row(shared_file(), 14, 3),
                row(shared_file(), 0, 2),
                row(Traits::SEVERAL_SOURCES, 22, 5),
                row(Traits::SEVERAL_SOURCES, 0, 7),
                row(Traits::UNPINNABLE, 12, 11),
                row(Traits::UNPINNABLE, 95, 1),
                row(Traits::default(), 14, 13),
                row(Traits::SEVERAL_SOURCES, 14, 17),
                row(Traits::PRIVATE_DAX, 0, 19),
                row(Traits::PRIVATE_DAX, 95, 23),
                row(Traits::DAX, 14, 29),
            ],
        );
        let agreement = Agreement::of(&all).unwrap();
        let agreed = 100 + 3 + 7 + 1 + 29;
        let (unserved, undecided) = (13 + 17, 19 + 23);
        assert_eq!(agreement, Agreement { agreed, other_errno: 1, accepted: 2, refused: 5, unserved, undecided });
        // A rule that looks at what GUP has brought in comes after it.
        let before = judgements(Policy::SingleSource, vec![row(shared_file(), 14, 3), row(shared_file(), 95, 4)]);
        let agreement = Agreement::of(&before).unwrap();
        assert_eq!((agreement.agreed, agreement.unserved, agreement.disagreed()), (104, 3, 0));
        assert_eq!(Agreement::of(&Judgements { kernel_policy: None, ..all }), None);
    }

    #[test]
    fn what_another_rule_answers_otherwise_is_told_by_process() {
        let all = judgements(
            Policy::SingleSource,
            vec![
                row(shared_file(), 95, 3),
                row(Traits::SEVERAL_SOURCES, 22, 5),
                row(Traits::SEVERAL_SOURCES, 22, 1),
                row(Traits::TRACKED, 0, 2),
                row(Traits::SEVERAL_SOURCES, 12, 9),
                row(Traits::SEVERAL_SOURCES, 14, 4),
            ],
        );
        let told: Vec<_> = changes(&all, Policy::Since65).into_iter().map(|c| (c.here, c.there, c.buffers)).collect();
        assert_eq!(told, [(22, 0, 6), (0, 14, 2)]);
        assert_eq!(changes(&all, Policy::SingleSource), []);
        let dax = judgements(Policy::Since65, vec![row(Traits::PRIVATE_DAX.with(Traits::FOREIGN), 0, 3)]);
        assert!(Policy::ALL.iter().all(|policy| changes(&dax, *policy).is_empty()));
    }

    #[test]
    fn refusals_are_summed_by_errno() {
        let read_only = row(shared_file().with(Traits::UNPINNABLE), 14, 5);
        let others = vec![row(shared_file(), 14, 3), row(Traits::SEVERAL_SOURCES, 0, 4), read_only];
        let all = judgements(Policy::Since65, others);
        assert_eq!(everywhere(&all), 5);
        let single = refused(&all, Policy::SingleSource);
        assert_eq!((single.buffers, single.processes), (7, 1));
        assert_eq!(single.errnos.into_iter().collect::<Vec<_>>(), [(22, 4), (95, 3)]);
        assert_eq!(refused(&all, Policy::Since65).buffers, 3);
    }
}
