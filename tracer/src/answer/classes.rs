//! When a ring's buffers are installed: at set-up, now and then, or at run time.

use std::collections::{BTreeMap, BTreeSet};

use super::{Threshold, evidence::sum};
use crate::{aggregate::Ring, decode::Pid};

/// Installations by this age of their ring are of its set-up, if they are few.
pub(super) const SETUP_AGE_NS: u64 = 1_000_000_000;
/// Installations at run time, at the least, of a ring or of a process's new rings.
pub(super) const RUN_TIME_LEAST: u64 = 8;
/// The longest mean time from one of them to the next.
pub(super) const RUN_TIME_GAP_NS: u64 = 10_000_000_000;

/// The constants above, as they are printed.
pub(super) const THRESHOLDS: &[Threshold] = &[
    Threshold {
        name: "set-up: before the ring's first request, or into slots that had never held a buffer, or fewer than run time's by this age of the ring",
        value: SETUP_AGE_NS as f64 / 1e9,
        unit: "s",
    },
    Threshold {
        name: "run time: at least this many after the ring's first request in the place of buffers before them",
        value: RUN_TIME_LEAST as f64,
        unit: "installations",
    },
    Threshold {
        name: "run time: on average one of them in at most this time",
        value: RUN_TIME_GAP_NS as f64 / 1e9,
        unit: "s",
    },
];

/// When buffers are installed. A process is as its most active ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// Only before the ring's first request, or into empty slots, or a few times soon after it was made.
    SetUp,
    /// Once, on a ring that was there before pinscope: its set-up may have been just then. Or this kernel does not tell what
    /// came after the ring's first request, and its age alone does not say.
    Unknown,
    /// After set-up, but few times or rarely.
    Occasional,
    /// Again and again.
    RunTime,
}

impl Class {
    /// Every class, the most active first.
    pub(super) const ALL: [Self; 4] = [Self::RunTime, Self::Occasional, Self::Unknown, Self::SetUp];

    /// The name in JSON, and for people.
    pub(super) fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::SetUp => ("set_up", "set-up"),
            Self::Unknown => ("unknown", "unknown"),
            Self::Occasional => ("occasional", "occasional"),
            Self::RunTime => ("run_time", "run time"),
        }
    }
}

/// The class of one ring. Of a ring that was there before pinscope the age is unknown: it is told by its requests and
/// its rate alone.
pub(super) fn class(ring: &Ring) -> Class {
    let young = ring.last_age_ns.is_some_and(|age| age <= SETUP_AGE_NS);
    if ring.late() == 0 {
        Class::SetUp
    } else if ring.after_requests.is_none() {
        if young && ring.late() < RUN_TIME_LEAST { Class::SetUp } else { Class::Unknown }
    } else if switches(ring) >= RUN_TIME_LEAST && often(ring.switch_gaps.unwrap_or(0), ring.switch_span_ns.unwrap_or(0))
    {
        Class::RunTime
    } else if young {
        Class::SetUp
    } else if ring.last_age_ns.is_none() && switches(ring) == 0 && ring.gaps == 0 && ring.installations() <= 1 {
        Class::Unknown
    } else {
        Class::Occasional
    }
}

/// Its switches, as far as they are told: where they are not, the class does not look at them.
fn switches(ring: &Ring) -> u64 {
    ring.switches.unwrap_or(0)
}

/// Whether so many times between two are at most [`RUN_TIME_GAP_NS`] each, on average.
fn often(gaps: u64, span_ns: u64) -> bool {
    span_ns <= gaps.saturating_mul(RUN_TIME_GAP_NS)
}

/// Switches a second; `None` where there is none with an installation before it.
pub(super) fn rate(ring: &Ring) -> Option<f64> {
    let (gaps, span_ns) = (ring.switch_gaps?, ring.switch_span_ns?);
    (gaps > 0 && span_ns > 0).then(|| gaps as f64 * 1e9 / span_ns as f64)
}

/// The same of several rings: those that did not live at the same time do not add up.
fn rate_of(rings: &[&&Ring]) -> Option<f64> {
    let from = rings.iter().map(|ring| ring.from_ns).min()?;
    let last = rings.iter().map(|ring| ring.last_ns).max()?;
    let (gaps, span) = (sum(rings, |ring| ring.switch_gaps.unwrap_or(0)), last.saturating_sub(from));
    (gaps > 0 && span > 0).then(|| gaps as f64 * 1e9 / span as f64)
}

/// The rings of one process.
pub(super) struct Owner<'a> {
    pub(super) pid: Pid,
    pub(super) comm: &'a str,
    pub(super) class: Class,
    pub(super) rings: u64,
    /// Rings at run time.
    pub(super) busy: u64,
    pub(super) installations: u64,
    /// Switches a second on the rings at run time, or new rings a second; `None` where it is at neither.
    pub(super) rate: Option<f64>,
    /// Rings that took the place of an earlier one: they were given its fd, so that it had been closed. A program that
    /// makes a ring for each set of buffers has many of them. A ring with an index may live on without its fd: of those
    /// the ones whose memory became another ring's.
    pub(super) replaced: u64,
    /// Whether it is at run time by its new rings.
    pub(super) renews: bool,
}

/// Processes, the most active first. `elapsed_ns` is the length of the session.
pub(super) fn owners(rings: &[Ring], elapsed_ns: u64) -> Vec<Owner<'_>> {
    let mut by_pid: BTreeMap<Pid, Vec<&Ring>> = BTreeMap::new();
    for ring in rings {
        by_pid.entry(ring.pid).or_default().push(ring);
    }
    let mut owners: Vec<_> = by_pid.into_iter().map(|(pid, rings)| owner(pid, &rings, elapsed_ns)).collect();
    owners.sort_by(|a, b| {
        let order = |owner: &Owner<'_>| (owner.class, owner.installations);
        order(b).cmp(&order(a)).then(a.pid.cmp(&b.pid))
    });
    owners
}

fn owner<'a>(pid: Pid, rings: &[&'a Ring], elapsed_ns: u64) -> Owner<'a> {
    let replaced = replaced(rings);
    let renews = replaced >= RUN_TIME_LEAST && often(replaced, elapsed_ns);
    let class = rings.iter().map(|ring| class(ring)).max().unwrap_or(Class::Unknown);
    let busy: Vec<_> = rings.iter().filter(|ring| self::class(ring) == Class::RunTime).collect();
    let switched = rate_of(&busy);
    let renewed = (elapsed_ns > 0).then(|| replaced as f64 * 1e9 / elapsed_ns as f64);
    let by_rings = renews && busy.is_empty();
    Owner {
        pid,
        comm: rings.first().map(|ring| ring.comm.as_str()).unwrap_or_default(),
        class: if renews { Class::RunTime } else { class },
        rings: rings.len() as u64,
        busy: busy.len() as u64,
        installations: sum(rings, |ring| ring.installations()),
        rate: if by_rings { renewed } else { switched },
        replaced,
        renews: by_rings,
    }
}

fn replaced(rings: &[&Ring]) -> u64 {
    let (indexed, plain): (Vec<&Ring>, Vec<&Ring>) = rings.iter().partition(|ring| ring.indexed);
    let fds: Vec<_> = plain.iter().filter_map(|ring| ring.fd).collect();
    let distinct: BTreeSet<_> = fds.iter().collect();
    let ended = indexed.iter().filter(|ring| ring.ended).count();
    (fds.len() - distinct.len() + ended) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// A ring made under pinscope's eyes, with registers in equal steps.
    fn ring(registers: u64, after_requests: u64, first_age_ns: u64, span_ns: u64) -> Ring {
        Ring {
            pid: 1.into(),
            comm: "server".to_owned(),
            fd: Some(3),
            flags: Some(0),
            registers,
            after_requests: Some(after_requests),
            first_age_ns: Some(first_age_ns),
            last_age_ns: Some(first_age_ns + span_ns),
            gaps: registers.saturating_sub(1),
            span_ns,
            // A register after another is a switch.
            fills: Some(0),
            fills_after_requests: Some(0),
            switches: Some(after_requests.min(registers.saturating_sub(1))),
            switch_gaps: Some(after_requests.min(registers.saturating_sub(1))),
            switch_span_ns: Some(span_ns),
            from_ns: 1,
            last_ns: 1 + span_ns,
            ..Ring::default()
        }
    }

    /// The same, but it was there before.
    fn old(registers: u64, after_requests: u64, span_ns: u64) -> Ring {
        Ring {
            fd: None,
            flags: None,
            first_age_ns: None,
            last_age_ns: None,
            ..ring(registers, after_requests, 0, span_ns)
        }
    }

    #[test]
    fn what_comes_before_requests_or_soon_is_set_up() {
        assert_eq!(class(&ring(1, 0, 1000, 0)), Class::SetUp);
        assert_eq!(class(&ring(1, 0, 100 * SECOND, 0)), Class::SetUp);
        assert_eq!(class(&ring(7, 7, 1000, SECOND / 2)), Class::SetUp);
    }

    #[test]
    fn without_the_requests_only_an_early_ring_has_a_class() {
        let untold = |ring| Ring { after_requests: None, switches: None, switch_gaps: None, ..ring };
        assert_eq!(class(&untold(ring(2, 0, 1000, 2 * SECOND))), Class::Unknown);
        assert_eq!(class(&untold(ring(2, 0, 1000, SECOND / 2))), Class::SetUp);
        assert_eq!(class(&untold(ring(8, 0, 1000, SECOND / 2))), Class::Unknown, "it may be at run time");
        assert_eq!(class(&untold(old(3, 0, SECOND))), Class::Unknown);
    }

    #[test]
    fn again_and_again_is_run_time() {
        assert_eq!(class(&ring(9, 8, 0, 80 * SECOND)), Class::RunTime);
        assert_eq!(class(&ring(20, 20, 1000, SECOND / 2)), Class::RunTime, "also on a ring of a short life");
        assert_eq!(class(&ring(9, 8, 0, 81 * SECOND)), Class::Occasional);
        assert_eq!(class(&ring(8, 7, 0, 10 * SECOND)), Class::Occasional);
        assert_eq!(class(&ring(1, 1, 5 * SECOND, 0)), Class::Occasional);
        assert_eq!(rate(&ring(9, 8, 0, 2 * SECOND)), Some(4.0));
    }

    /// A table of empty slots, each filled once, then so many of them replaced.
    fn filled(slots: u64, replaced: u64, span_ns: u64) -> Ring {
        Ring {
            updates: slots + replaced,
            fills: Some(slots),
            fills_after_requests: Some(slots),
            switches: Some(replaced),
            switch_gaps: Some(replaced),
            ..ring(0, slots + replaced, 2 * SECOND, span_ns)
        }
    }

    #[test]
    fn to_fill_empty_slots_is_set_up_and_to_replace_is_run_time() {
        assert_eq!(class(&filled(64, 0, SECOND / 100)), Class::SetUp);
        assert_eq!(class(&filled(64, 0, 3600 * SECOND)), Class::SetUp, "however late");
        assert_eq!(rate(&filled(64, 0, SECOND)), None);
        assert_eq!(class(&filled(64, 1, SECOND)), Class::Occasional);
        assert_eq!(class(&filled(64, 8, SECOND)), Class::RunTime);
        assert_eq!(rate(&filled(64, 8, SECOND)), Some(8.0), "the fills are in no rate");
        assert_eq!(
            class(&filled(1000, 8, 81 * SECOND)),
            Class::Occasional,
            "many fills do not make replacements frequent"
        );
        let old = Ring { last_age_ns: None, first_age_ns: None, ..filled(0, 1, 0) };
        assert_eq!(class(&old), Class::Occasional, "what replaces something is not the set-up");
    }

    #[test]
    fn a_ring_that_was_there_before_is_told_apart() {
        assert_eq!(class(&old(1, 1, 0)), Class::Unknown);
        assert_eq!(class(&old(2, 2, SECOND)), Class::Occasional);
        assert_eq!(class(&old(100, 100, SECOND)), Class::RunTime);
        assert_eq!(class(&old(1, 0, 0)), Class::SetUp, "had it been installed before, it was before requests too");
    }

    #[test]
    fn a_process_is_as_its_most_active_ring() {
        let rings = [ring(1, 0, 0, 0), Ring { fd: Some(4), ..ring(101, 100, 0, 10 * SECOND) }];
        let owners = owners(&rings, 60 * SECOND);
        assert_eq!((owners.len(), owners[0].class, owners[0].rings, owners[0].busy), (1, Class::RunTime, 2, 1));
        assert_eq!((owners[0].rate, owners[0].renews), (Some(10.0), false));
    }

    #[test]
    fn an_interval_has_the_time_from_the_installation_before_it() {
        let of_interval = Ring {
            switches: Some(10),
            switch_gaps: Some(10),
            switch_span_ns: Some(2 * SECOND),
            gaps: 10,
            span_ns: 2 * SECOND,
            ..ring(10, 10, 0, 0)
        };
        assert_eq!((class(&of_interval), rate(&of_interval)), (Class::RunTime, Some(5.0)));
        let one =
            Ring { gaps: 1, switches: Some(1), switch_gaps: Some(1), switch_span_ns: Some(SECOND / 2), ..old(1, 1, 0) };
        assert_eq!((class(&one), rate(&one)), (Class::Occasional, Some(2.0)));
    }

    #[test]
    fn rings_one_after_the_other_do_not_add_up() {
        let at = |start: u64| Ring {
            fd: Some(start as i32),
            from_ns: start * SECOND,
            last_ns: (start + 1) * SECOND,
            ..ring(11, 10, 0, SECOND)
        };
        let rate = |rings: &[Ring]| owners(rings, 60 * SECOND)[0].rate;
        assert_eq!(rate(&[at(0)]), Some(10.0));
        assert_eq!(rate(&[at(0), at(1), at(2)]), Some(10.0), "one after the other");
        assert_eq!(rate(&[at(0), Ring { fd: Some(9), ..at(0) }]), Some(20.0), "at the same time");
    }

    #[test]
    fn a_ring_with_an_index_lives_on_without_its_fd() {
        let indexed = vec![Ring { indexed: true, ..ring(1, 0, 1000, 0) }; 31];
        assert_eq!(owners(&indexed, 10 * SECOND)[0].class, Class::SetUp, "31 threads, a ring each");
        let ended: Vec<_> = indexed.iter().map(|ring| Ring { ended: true, ..ring.clone() }).collect();
        assert_eq!(owners(&ended, 10 * SECOND)[0].class, Class::RunTime);
    }

    #[test]
    fn a_ring_for_each_set_is_run_time_and_a_ring_for_each_thread_is_not() {
        let renewed = vec![ring(1, 0, 1000, 0); 31];
        let owners_of = |rings: &[Ring], elapsed| owners(rings, elapsed).remove(0).class;
        assert_eq!(owners_of(&renewed, 10 * SECOND), Class::RunTime);
        assert_eq!(owners(&renewed, 10 * SECOND)[0].rate, Some(3.0));
        assert_eq!(owners_of(&renewed, 4000 * SECOND), Class::SetUp);
        let threads: Vec<_> = (0..31).map(|fd| Ring { fd: Some(fd), ..ring(1, 0, 1000, 0) }).collect();
        assert_eq!(owners_of(&threads, 10 * SECOND), Class::SetUp);
    }

    prop_compose! {
        fn any_ring()(
            counts in any::<[u64; 4]>(),
            shift in 0_u32..64,
            fd in any::<Option<i32>>(),
            ages in any::<Option<(u64, u64)>>(),
            span_ns: u64,
        ) -> Ring {
            let [registers, updates, clones, after_requests] = counts.map(|count| count >> shift);
            Ring {
                gaps: registers.saturating_sub(1), from_ns: updates, last_ns: clones, indexed: shift % 2 == 0,
                switches: Some(after_requests), switch_gaps: Some(registers), switch_span_ns: Some(span_ns),
                fills_after_requests: Some(updates),
                registers, updates, clones, after_requests: Some(after_requests), fd, span_ns,
                first_age_ns: ages.map(|(first, _)| first),
                last_age_ns: ages.map(|(_, last)| last),
                ..Ring::default()
            }
        }
    }

    proptest! {
        #[test]
        fn every_ring_and_process_has_one_class(rings in prop::collection::vec(any_ring(), 1..20), elapsed: u64) {
            let counted: u64 = Class::ALL.iter().map(|one| rings.iter().filter(|ring| class(ring) == *one).count() as u64).sum();
            prop_assert_eq!(counted, rings.len() as u64);
            let owners = owners(&rings, elapsed);
            prop_assert_eq!(sum(&owners, |owner| owner.rings), rings.len() as u64);
            prop_assert!(owners.iter().all(|owner| owner.rate.is_none_or(f64::is_finite)));
        }

        #[test]
        fn more_requests_never_make_a_ring_calmer(mut ring in any_ring(), more: u64) {
            let before = class(&ring);
            ring.after_requests = ring.after_requests.map(|after| after.saturating_add(more));
            prop_assert!(class(&ring) >= before);
        }
    }
}
