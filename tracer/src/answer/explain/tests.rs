use tracer_ebpf::policy::{Policy, Traits};

use super::*;
use crate::{
    aggregate::{Habits, Judgements},
    answer::fixture::{a_snapshot, context, habits, judged, judgements, process, shared_file},
};

/// The advice to a process with these habits, by the names of the rules.
fn rules(habits: Habits) -> Vec<&'static str> {
    advice_to(process(42, "fio", habits), None, &context())
}

fn advice_to(process: Process, judgements: Option<Judgements>, context: &Context) -> Vec<&'static str> {
    let snapshot = Snapshot { processes: Some(vec![process]), judgements, ..a_snapshot() };
    let told = explanations(&snapshot, context).unwrap().remove(0);
    assert_eq!(told.summary.starts_with("Nothing to advise"), told.advice.is_empty(), "{}", told.summary);
    for advice in &told.advice {
        assert!(advice.seen.contains(|c: char| c.is_ascii_digit()), "no figure: {}", advice.seen);
        for text in [&advice.seen, &advice.costs, &advice.change, &advice.expect] {
            assert!(text.ends_with('.'), "{text}");
        }
        assert!(!advice.thresholds.is_empty());
    }
    told.advice.iter().map(|advice| advice.rule).collect()
}

#[test]
fn names_are_distinct() {
    let mut names: Vec<_> = rules::RULES.iter().map(|rule| rule.name).collect();
    names.dedup();
    assert_eq!(names.len(), rules::RULES.len());
}

#[test]
fn a_program_without_faults_gets_no_advice() {
    assert_eq!(rules(habits()), [""; 0]);
}

#[test]
fn memory_that_is_faulted_in() {
    let untouched = Habits {
        minor_faults: Some(1024),
        faulting_pin_ns: Some(6_000_000),
        faulting_bytes: Some(4 << 20),
        ..habits()
    };
    assert_eq!(rules(untouched.clone()), ["faulted_in"]);
    assert_eq!(rules(Habits { minor_faults: Some(63), ..untouched.clone() }), [""; 0]);
    // Huge pages: two faults brought in all of it.
    assert_eq!(rules(Habits { faulting_bytes: Some(4 << 30), ..untouched.clone() }), [""; 0]);
    assert_eq!(rules(Habits { faulting_pin_ns: Some(1_000_000), ..untouched }), [""; 0]);
}

#[test]
fn large_buffers_of_small_pages() {
    let small = Habits { large_buffers: 4, large_bytes: 16 << 20, large_bvecs: 4096, ..habits() };
    assert_eq!(rules(small.clone()), ["small_pages"]);
    assert_eq!(rules(Habits { large_bvecs: 8, ..small.clone() }), [""; 0]);
    let untimed = Process { pin_ns: None, ..process(42, "fio", small.clone()) };
    let snapshot = Snapshot { processes: Some(vec![untimed]), ..a_snapshot() };
    let told = explanations(&snapshot, &context()).unwrap().remove(0);
    assert!(told.advice[0].costs.starts_with("Each page"), "an unknown time is no 0 ns: {}", told.advice[0].costs);
    let before_6_12 = Context { coalesces: false, ..context() };
    assert_eq!(advice_to(process(42, "fio", small), None, &before_6_12), [""; 0]);
}

#[test]
fn small_adjacent_iovecs() {
    let pieces = Habits { adjacent_buffers: 399, adjacent_bytes: 399 * 4096, long_lists: 1, ..habits() };
    assert_eq!(rules(pieces.clone()), ["adjacent_iovecs"]);
    assert_eq!(rules(Habits { adjacent_bytes: 399 << 20, ..pieces.clone() }), [""; 0]);
    assert_eq!(rules(Habits { adjacent_buffers: 255, ..pieces.clone() }), [""; 0]);
    let many_others = Process { buffers: Some(10_000), ..process(42, "fio", pieces) };
    assert_eq!(advice_to(many_others, None, &context()), [""; 0]);
}

#[test]
fn the_same_ranges_again() {
    let again = Habits { repeated: 90, repeated_ns: 9_000_000, ..habits() };
    assert_eq!(rules(again.clone()), ["registered_again"]);
    assert_eq!(rules(Habits { repeated: 7, ..again.clone() }), [""; 0]);
    assert_eq!(rules(Habits { repeated_ns: 900_000, ..again }), [""; 0]);
}

#[test]
fn the_same_ranges_on_other_rings() {
    let elsewhere = Habits { elsewhere: 63, elsewhere_ns: 9_000_000, ..habits() };
    assert_eq!(rules(elsewhere.clone()), ["registered_elsewhere"]);
    assert_eq!(rules(Habits { elsewhere: 7, ..elsewhere.clone() }), [""; 0]);
    let before_6_12 = Context { clones: false, ..context() };
    assert_eq!(advice_to(process(42, "fio", elsewhere), None, &before_6_12), [""; 0]);
}

#[test]
fn refused_for_want_of_locked_memory() {
    assert_eq!(rules(Habits { enomem: Some(1), ..habits() }), ["memlock"]);
}

#[test]
fn many_vmas_in_a_buffer() {
    let many =
        Habits { many_vma_buffers: Some(2), many_vmas: Some(2048), many_vma_pin_ns: Some(5_000_000), ..habits() };
    assert_eq!(rules(many.clone()), ["many_vmas"]);
    assert_eq!(rules(Habits { many_vma_pin_ns: Some(500_000), ..many }), [""; 0]);
}

#[test]
fn a_refused_mapping() {
    let to = |policy: Policy, traits: Traits, errno: i32| {
        let judgements = judgements(policy, vec![judged(traits, errno, 3)]);
        advice_to(process(42, "fio", habits()), Some(judgements), &context())
    };
    assert_eq!(to(Policy::Before65, shared_file(), 95), ["refused_mapping"]);
    assert_eq!(to(Policy::Since65, shared_file(), 14), ["refused_mapping"]);
    assert_eq!(to(Policy::Since65, shared_file().with(Traits::UNPINNABLE), 14), [""; 0]);
    assert_eq!(to(Policy::Since65, shared_file(), 12), [""; 0]);
    assert_eq!(to(Policy::Since65, shared_file(), 0), [""; 0]);
    assert_eq!(to(Policy::Since65, Traits::LARGE, 14), [""; 0]);
    assert_eq!(to(Policy::Since72, Traits::LARGE, 0), [""; 0]);
    let other = judgements(Policy::Before65, vec![judged(shared_file(), 0, 3)]);
    assert_eq!(advice_to(process(43, "other", habits()), Some(other), &context()), [""; 0]);
}

#[test]
fn what_was_not_looked_at_is_said() {
    let blind = Process { habits: None, ..process(42, "fio", habits()) };
    let snapshot = Snapshot { processes: Some(vec![blind]), judgements: None, ..a_snapshot() };
    let told = explanations(&snapshot, &context()).unwrap();
    assert!(told[0].summary.ends_with("its buffers were not looked at."), "{}", told[0].summary);
    assert_eq!(explanations(&Snapshot { processes: None, ..snapshot }, &context()), None);
}
