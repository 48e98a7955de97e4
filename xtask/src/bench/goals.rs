//! Goals for pinscope's cost. Pure.

use super::{
    figures::{Attach, Case, Mode, Round, added, further_vma},
    self_cost::Figure,
};
use crate::vm::kernel::USUAL;

/// The subject of a goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Case(Case),
    FurtherVma,
}

impl Subject {
    pub fn name(self) -> &'static str {
        match self {
            Self::Case(case) => case.name(),
            Self::FurtherVma => "further_vma",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::Case(case) => case.title(),
            Self::FurtherVma => "a further VMA",
        }
    }

    /// Instructions that the round adds.
    pub fn added(self, alone: &Round, round: &Round) -> Option<f64> {
        match self {
            Self::Case(case) => added(alone, round, case).map(|added| added as f64),
            Self::FurtherVma => further_vma(alone, round),
        }
    }
}

/// Maximum number of added instructions. Goals apply to the daemon with its default flags. Goals for bystanders apply
/// on every kernel, all others on one kernel only.
pub fn goal(series: &str, mode: Mode, subject: Subject) -> Option<u32> {
    let Mode::Daemon(by) = mode else { return None };
    match (subject, by) {
        (Subject::Case(Case::Fault | Case::Odirect), _) => Some(0),
        _ if series != USUAL => None,
        (Subject::Case(Case::Pages1), Attach::Fentry) => Some(2200),
        (Subject::Case(Case::Pages1), Attach::Kprobe) => Some(3800),
        (Subject::FurtherVma, _) => Some(400),
        (Subject::Case(_), _) => None,
    }
}

/// Maximum that the daemon may take for itself, in the figure's unit.
pub fn self_cost_goal(figure: Figure) -> f64 {
    match figure {
        Figure::Resident => 12.0,
        // 5 ms at three instructions per nanosecond, which is low for writing the text and realistic for the kernel's
        // part.
        Figure::Scrape | Figure::CrowdedScrape => 15.0,
        Figure::CrowdedResident => 64.0,
        Figure::Wakeups => 0.0,
        Figure::Start => 2.5,
        Figure::Peak => 16.0,
    }
}

/// Variation between runs, in instructions. The disk's driver may take different paths: the minimum of an O_DIRECT read
/// differs by up to 7 from run to run. The emptiest probe costs 127.
pub fn resolution(subject: Subject) -> f64 {
    if subject == Subject::Case(Case::Odirect) { 16.0 } else { 0.0 }
}

/// Whether the added instructions are within a goal.
pub fn within(added: f64, goal: u32, subject: Subject) -> bool {
    added <= f64::from(goal) + resolution(subject)
}

/// A goal and the measured figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    pub mode: Mode,
    pub subject: Subject,
    pub added: f64,
    pub goal: u32,
}

impl Verdict {
    pub fn met(&self) -> bool {
        within(self.added, self.goal, self.subject)
    }
}

/// Goals for which there is a figure.
pub fn verdicts(series: &str, alone: &Round, rounds: &[Round]) -> Vec<Verdict> {
    let subjects = Case::ALL.into_iter().map(Subject::Case).chain([Subject::FurtherVma]);
    subjects
        .flat_map(|subject| rounds.iter().map(move |round| (subject, round)))
        .filter_map(|(subject, round)| {
            let goal = goal(series, round.mode, subject)?;
            Some(Verdict { mode: round.mode, subject, added: subject.added(alone, round)?, goal })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::figures::tests::round, *};

    #[test]
    fn a_goal_is_met_up_to_its_last_instruction() {
        let alone = round(Mode::Alone, &[(Case::Pages1, 1000), (Case::Fault, 50)]);
        let of = |pages1, fault| {
            let daemon = round(Mode::Daemon(Attach::Fentry), &[(Case::Pages1, pages1), (Case::Fault, fault)]);
            verdicts("6.12", &alone, &[daemon]).iter().map(Verdict::met).collect::<Vec<_>>()
        };
        assert_eq!(of(3200, 50), [true, true]);
        assert_eq!(of(3201, 51), [false, false]);
    }

    #[test]
    fn variation_of_the_disk_is_no_miss_but_a_probe_is() {
        let alone = round(Mode::Alone, &[(Case::Odirect, 6000)]);
        let met = |added: u64| {
            let daemon = round(Mode::Daemon(Attach::Fentry), &[(Case::Odirect, 6000 + added)]);
            verdicts("7.3", &alone, &[daemon])[0].met()
        };
        assert!(met(16));
        assert!(!met(17));
        assert!(!met(127));
    }

    #[test]
    fn registrations_have_goals_on_one_kernel_and_bystanders_on_all() {
        let alone = round(Mode::Alone, &[(Case::Pages1, 1000), (Case::Odirect, 50)]);
        let rounds = [Mode::Daemon(Attach::Kprobe), Mode::Trace(Attach::Kprobe), Mode::Bpftrace(Attach::Kprobe)]
            .map(|mode| round(mode, &[(Case::Pages1, 9000), (Case::Odirect, 60)]));
        let subjects = |series| {
            verdicts(series, &alone, &rounds).iter().map(|verdict| (verdict.mode, verdict.subject)).collect::<Vec<_>>()
        };
        let daemon = Mode::Daemon(Attach::Kprobe);
        assert_eq!(subjects("6.12"), [(daemon, Subject::Case(Case::Pages1)), (daemon, Subject::Case(Case::Odirect))]);
        assert_eq!(subjects("6.1"), [(daemon, Subject::Case(Case::Odirect))]);
    }
}
