use proptest::prelude::*;
use tracer_ebpf::{
    backing::Class,
    policy::{Policy, Traits},
};

use super::{
    fixture::{SECOND, a_snapshot, cell, context, installations, judged, judgements, ring, rings, shared_file, values},
    *,
};
use crate::{
    aggregate::{
        CostCell, Habits, Judged, Judgements, Largest, Ring, Rings, SharedBufferFile, fold,
        tests::{any_capabilities, any_sample},
    },
    decode::{Capabilities, Pid},
    figure::Figure,
    sample::Sample,
};

fn of(snapshot: &Snapshot, id: &str) -> Answer {
    answers(snapshot, &context()).into_iter().find(|answer| answer.id == id).unwrap()
}

fn verdict(snapshot: &Snapshot, id: &str) -> String {
    let answer = of(snapshot, id);
    answer.verdict.clone().unwrap_or_else(|| format!("{:?}", answer.state))
}

fn why(snapshot: &Snapshot, id: &str) -> (&'static str, String) {
    let answer = of(snapshot, id);
    (answer.state.name(), answer.state.why().join(" | "))
}

fn with_rings(list: Vec<Ring>) -> Snapshot {
    let rings = rings(list);
    Snapshot { installations: Some(installations(&rings)), rings: Some(rings), ..a_snapshot() }
}

#[test]
fn all_that_can_be_is_answered() {
    let states: Vec<_> = answers(&a_snapshot(), &context()).iter().map(|a| (a.id, a.state.name())).collect();
    let yes = "answered";
    assert_eq!(states, [("Q1", yes), ("Q2", yes), ("Q3", yes), ("Q4", yes), ("Q5", yes), ("Q7", "unanswerable")]);
    let hooks: Vec<_> = of(&a_snapshot(), "Q2").evidence.hooks.iter().map(|hook| hook.role).collect();
    assert_eq!(hooks, ["register", "buffer", "pin", "look-up"]);
}

#[test]
fn nothing_seen_is_no_answer() {
    let nothing = fold(&Sample::default(), &Capabilities::all());
    for id in ["Q1", "Q2", "Q3", "Q4", "Q5"] {
        assert_eq!(why(&nothing, id), ("unanswerable", "no registration was seen".to_owned()), "{id}");
    }
}

#[test]
fn a_kernel_without_a_walk_says_so() {
    let reason = "the kernel has no bpf_find_vma (5.17)";
    let mut capabilities = Capabilities { walk: false, ..Capabilities::all() };
    capabilities.figures.lose(&[Figure::Vmas, Figure::Backings, Figure::Files], reason);
    let snapshot = Snapshot { rings: a_snapshot().rings, ..fold(&crate::aggregate::tests::a_sample(), &capabilities) };
    for id in ["Q3", "Q4", "Q5"] {
        assert_eq!(why(&snapshot, id), ("unanswerable", reason.to_owned()), "{id}");
    }
    assert_eq!(why(&snapshot, "Q1").0, "answered");
    assert_eq!(why(&snapshot, "Q2"), ("degraded", format!("VMAs touched: {reason}")));
    assert_eq!(
        verdict(&snapshot, "Q2"),
        "GUP does not dominate: 46.5% of the time of 12 registrations, 2 of them without a pin, was in the pin."
    );
}

#[test]
fn q1_set_up() {
    let two = with_rings(vec![ring(42, "fio", 3, 1, 0, 0), ring(42, "fio", 4, 2, 0, SECOND * 2)]);
    assert_eq!(verdict(&two, "Q1"), "Set-up: 2 of 2 rings installed buffers only before their first request.");
    let soon = with_rings(vec![ring(42, "fio", 3, 2, 1, SECOND / 2)]);
    assert_eq!(
        verdict(&soon, "Q1"),
        "Set-up: 1 of 1 ring installed buffers only before their first request or within 1.00 s of their making."
    );
}

#[test]
fn q1_run_time() {
    assert_eq!(
        verdict(&a_snapshot(), "Q1"),
        "Run time: process server (pid 7) switched buffer sets 312 times a second on 1 of 2 rings."
    );
    let slowly = with_rings(vec![ring(7, "a", 5, 11, 10, 50 * SECOND), ring(8, "b", 5, 9, 8, 80 * SECOND)]);
    assert_eq!(
        verdict(&slowly, "Q1"),
        "Run time: process a (pid 7) switched buffer sets once in 5.00 s on 1 of 1 ring, and 1 other process does the like."
    );
}

#[test]
fn q1_a_new_ring_for_each_set() {
    let renewed = with_rings(vec![ring(7, "churn", 5, 1, 0, 0); 101]);
    assert_eq!(
        verdict(&renewed, "Q1"),
        "Run time: process churn (pid 7) made a new ring for its buffers 10.0 times a second (100 in the place of one that it had closed)."
    );
}

#[test]
fn q1_occasional() {
    let twice = with_rings(vec![ring(7, "server", 5, 3, 2, 100 * SECOND), ring(7, "server", 6, 1, 0, 0)]);
    assert_eq!(
        verdict(&twice, "Q1"),
        "Occasional: 1 of 2 rings had buffers installed after set-up, but few times or rarely, first among them those of server (pid 7) with 4 installations; none at run time."
    );
}

#[test]
fn q1_tells_rings_that_were_there_before_apart() {
    let old = Ring { fd: None, first_age_ns: None, last_age_ns: None, ..ring(7, "server", 0, 1, 1, 0) };
    let alone = with_rings(vec![old.clone()]);
    assert_eq!(why(&alone, "Q1").0, "unanswerable");
    let beside = with_rings(vec![old, ring(42, "fio", 3, 1, 0, 0)]);
    assert_eq!(verdict(&beside, "Q1"), "Set-up: 1 of 2 rings installed buffers only before their first request.");
    assert_eq!(
        why(&beside, "Q1"),
        ("degraded", "1 ring had been there before pinscope and installed once: it may have been set-up".to_owned())
    );
}

#[test]
fn q1_a_ring_on_which_all_failed_is_not_an_old_one() {
    let refused = Ring { failed: 2, first_age_ns: None, last_age_ns: None, ..ring(8, "nobody", 4, 0, 0, 0) };
    let answer = of(&with_rings(vec![refused, ring(42, "fio", 3, 1, 0, 0)]), "Q1");
    assert!(answer.evidence.notes.iter().all(|note| !note.contains("before pinscope")), "{:?}", answer.evidence.notes);
}

/// As a kernel has them that does not tell what came after the first request.
fn without_requests(list: Vec<Ring>) -> Snapshot {
    let list = list.into_iter().map(|ring| Ring {
        after_requests: None,
        fills_after_requests: None,
        switches: None,
        switch_gaps: None,
        switch_span_ns: None,
        ..ring
    });
    let mut snapshot = Snapshot { installations: None, ..with_rings(list.collect()) };
    snapshot.figures.lose(&[Figure::Requests], "BTF has no io_ring_ctx.cached_sq_head");
    snapshot
}

#[test]
fn q1_without_requests_does_not_take_set_up_for_occasional() {
    let late = ring(42, "fio", 3, 2, 0, SECOND * 2);
    let untold = without_requests(vec![late.clone()]);
    assert_eq!(
        why(&untold, "Q1"),
        (
            "unanswerable",
            "1 ring without a class: what came after the ring's first request is not known (BTF has no io_ring_ctx.cached_sq_head)"
                .to_owned()
        )
    );
    let early = without_requests(vec![ring(42, "fio", 4, 2, 0, SECOND / 2), late]);
    assert_eq!(why(&early, "Q1").0, "degraded");
    assert_eq!(verdict(&early, "Q1"), "Set-up: 1 of 2 rings installed buffers only within 1.00 s of their making.");
}

#[test]
fn q1_without_a_list_has_totals() {
    let totals = Snapshot { rings: Some(Rings { list: None, ..a_snapshot().rings.unwrap() }), ..a_snapshot() };
    assert_eq!(
        verdict(&totals, "Q1"),
        "3 of 315 installations on 3 rings came before the ring's first request and 312 after it (whole tables: 312)."
    );
    assert_eq!(why(&totals, "Q1").0, "degraded");
    let requests = Snapshot { rings: None, ..a_snapshot() };
    assert_eq!(
        verdict(&requests, "Q1"),
        "3 of 315 installations came before the ring's first request and 312 after it (whole tables: 312)."
    );
    assert_eq!(why(&requests, "Q1").0, "degraded");
    let without = Snapshot { installations: None, ..requests };
    assert_eq!(
        why(&without, "Q1"),
        ("unanswerable", "registrations by ring are not measured in this session".to_owned())
    );
}

#[test]
fn q2_says_where_the_pass_costs_as_much_as_the_pin() {
    assert_eq!(
        verdict(&a_snapshot(), "Q2"),
        "GUP does not dominate: 46.5% of the time of 12 registrations, 2 of them without a pin, was in the pin; a separate pass over the VMAs would add at most 10.2% to the pins, and cost as much as the pin from 16-31 VMAs on."
    );
    let never = Snapshot { costs: Some(vec![cell(1, 64, 8, 41_000, 500)]), ..a_snapshot() };
    assert!(verdict(&never, "Q2").ends_with("and less than the pin at every number of VMAs seen (up to 1)."));
    let between = vec![cell(2, 2, 8, 950, 1_000), cell(64, 16_384, 2, 20_000_000, 30_000)];
    let between = Snapshot { costs: Some(between), ..a_snapshot() };
    let told = verdict(&between, "Q2");
    assert!(told.ends_with("and cost as much as the pin at 2-3 VMAs, but not at 64-127 VMAs."), "{told}");
    let by_size = &of(&a_snapshot(), "Q2").evidence.tables[2];
    let even: Vec<_> = by_size.rows.iter().map(|row| (row[4].clone(), row[5].clone())).collect();
    assert_eq!(
        even,
        [
            (Value::Count(3), Value::Flag(false)),
            (Value::Count(14), Value::Flag(true)),
            (Value::Count(82), Value::Flag(true)),
        ]
    );
}

#[test]
fn q2_needs_a_pin() {
    let mut snapshot = a_snapshot();
    snapshot.pin = Some(values(&[]));
    assert_eq!(why(&snapshot, "Q2").0, "unanswerable");
    snapshot.split = None;
    assert_eq!(
        why(&snapshot, "Q2"),
        ("unanswerable", "the times of the pins are not measured in this session".to_owned())
    );
}

#[test]
fn q3_names_the_largest() {
    assert_eq!(
        verdict(&a_snapshot(), "Q3"),
        "90.0% of 40 buffers and 90.0% of 10 registrations lay in a single VMA; the most in a registration was 71 VMAs by server (pid 7), in a buffer 18."
    );
    let nobody = Snapshot { largest_registration: None, largest_buffer: None, ..a_snapshot() };
    assert!(verdict(&nobody, "Q3").ends_with("no buffer touched more than 18."));
}

#[test]
fn walks_that_did_not_end_degrade_what_rests_on_them() {
    let mut snapshot = a_snapshot();
    snapshot.walks.as_mut().unwrap().busy = 2;
    let states: Vec<_> = answers(&snapshot, &context()).iter().map(|answer| answer.state.name()).collect();
    assert_eq!(states[..5], ["answered", "degraded", "degraded", "answered", "degraded"]);
    assert_eq!(why(&snapshot, "Q3").1, "2 buffers could not be walked to the end");
}

#[test]
fn what_was_not_measured_degrades_all() {
    let mut snapshot = a_snapshot();
    snapshot.books.coverage = Some(0.75);
    for answer in &answers(&snapshot, &context())[..5] {
        assert_eq!(answer.state.why(), ["25.0% of the calls were not measured"], "{}", answer.id);
    }
}

#[test]
fn q4_under_each_rule() {
    assert_eq!(
        verdict(&a_snapshot(), "Q4"),
        "Of 103 buffers 3 would be refused by the rule before 6.5, 3 by that of 6.3 and 6.4, 3 by the one proposed, 2 by that of 6.5 to 7.1 and 2 by that of 7.2 and later."
    );
    let hole = judgements(Policy::Since65, vec![judged(Traits::UNPINNABLE, 14, 3)]);
    assert_eq!(
        verdict(&Snapshot { judgements: Some(hole), ..a_snapshot() }, "Q4"),
        "None of 103 buffers would be refused under any of the five rules; every kernel refuses 3 (read-only, with a hole, or on DAX)."
    );
    let clean = Snapshot { judgements: Some(judgements(Policy::Since65, vec![])), ..a_snapshot() };
    assert_eq!(verdict(&clean, "Q4"), "None of 100 buffers would be refused under any of the five rules.");
}

#[test]
fn q4_names_whom_an_upgrade_would_hit() {
    let others = vec![judged(Traits::TRACKED.with(Traits::FILE), 0, 3), judged(Traits::SEVERAL_SOURCES, 22, 5)];
    let old = Snapshot { judgements: Some(judgements(Policy::SingleSource, others)), ..a_snapshot() };
    let told = of(&old, "Q4");
    assert_eq!(
        told.verdict.as_deref(),
        Some(
            "3 buffers of fio (pid 42) are accepted here and would be refused by 6.5 and later; of 108 buffers none would be refused by the rule before 6.5, 5 by that of 6.3 and 6.4, 3 by the one proposed, 3 by that of 6.5 to 7.1 and 3 by that of 7.2 and later."
        )
    );
    assert_eq!(
        told.evidence.notes,
        [
            "fio (pid 42) registers 3 buffers of file ext4 on this kernel and would be refused (EFAULT) after an upgrade to 6.5 or later.",
            "fio (pid 42) is refused 5 buffers of file ext4 next to another source (EINVAL) on this kernel and would be accepted after an upgrade to 6.5 or later.",
            "This kernel is under the rule single_source (told by its functions); 108 of 108 of its answers are what that rule says.",
        ]
    );
    assert_eq!(told.state, State::Answered);
}

#[test]
fn q4_tells_what_differs_by_length() {
    let notes = |running, errno| {
        let told = judgements(running, vec![judged(Traits::LARGE, errno, 3)]);
        let answer = of(&Snapshot { judgements: Some(told), ..a_snapshot() }, "Q4");
        answer.evidence.notes.into_iter().next().unwrap()
    };
    assert_eq!(
        notes(Policy::Since65, 14),
        "fio (pid 42) is refused 3 buffers of file ext4, more than 1 GiB (EFAULT) on this kernel and would be accepted after an upgrade to 7.2 or later."
    );
    assert_eq!(
        notes(Policy::Since72, 0),
        "fio (pid 42) registers 3 buffers of file ext4, more than 1 GiB on this kernel and would be refused (EFAULT) on a kernel before 7.2."
    );
}

#[test]
fn q4_shows_disagreement() {
    let others = vec![judged(shared_file(), 0, 3)];
    let odd = Snapshot { judgements: Some(judgements(Policy::Since65, others)), ..a_snapshot() };
    assert_eq!(
        why(&odd, "Q4"),
        (
            "degraded",
            "3 of the kernel's answers are not what its rule says (3 accepted though refused by it, 0 the other way)"
                .to_owned()
        )
    );
}

#[test]
fn q5_names_the_files() {
    assert_eq!(
        verdict(&a_snapshot(), "Q5"),
        "1 of 40 buffers (2.5%) spans more than one file, such as those of memfd:pool (tmpfs) by fio (pid 42)."
    );
    let of = |vm_files, files| Snapshot {
        multi_vm_file_buffers: Some(vm_files),
        multi_file_buffers: Some(files),
        shared_buffer_files: Some(vec![]),
        ..a_snapshot()
    };
    assert_eq!(verdict(&of(0, 0), "Q5"), "None of 40 buffers spans more than one vm_file.");
    assert_eq!(
        verdict(&of(4, 0), "Q5"),
        "4 of 40 buffers (10.0%) span more than one vm_file of one file, which was opened more than once."
    );
    assert_eq!(
        verdict(&of(4, 1), "Q5"),
        "4 of 40 buffers (10.0%) span more than one vm_file, 1 of them more than one file."
    );
    assert_eq!(why(&of(0, 0), "Q5").0, "answered");
    let mut full = a_snapshot();
    full.lost.files = Some(5);
    assert_eq!(why(&full, "Q5"), ("degraded", "5 files of a shared buffer: unnamed, or the map was full".to_owned()));
    let unnamed = Snapshot { shared_buffer_files: None, ..a_snapshot() };
    assert_eq!(why(&unnamed, "Q5"), ("degraded", "which files those are was not kept in this session".to_owned()));
}

#[test]
fn json_has_the_exact_figures() {
    let json = serde_json::to_value(of(&a_snapshot(), "Q1")).unwrap();
    let keys: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys.join(" "), "evidence id question state verdict why");
    let row = &json["evidence"]["tables"][0]["rows"][0];
    assert_eq!(row["process"], serde_json::json!({"pid": 7, "comm": "server"}));
    assert_eq!((&row["class"], &row["after_requests"]), (&"run_time".into(), &312.into()));
    assert_eq!(row["rate_per_second"], 312.0);
    let json = serde_json::to_value(of(&a_snapshot(), "Q7")).unwrap();
    assert!(json["verdict"].is_null() && json["evidence"]["n"].is_null());
}

fn figure() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0_u32..64).prop_map(|(value, shift)| value >> shift)
}

fn any_judgements() -> impl Strategy<Value = Judgements> {
    let policy = prop::sample::select(vec![
        None,
        Some(Policy::Before65),
        Some(Policy::SingleSource),
        Some(Policy::Since65),
        Some(Policy::Since72),
    ]);
    let row = (0..Traits::COUNT, -1_i32..200, any::<Option<u32>>(), "\\PC{0,20}", figure(), figure());
    let others = prop::collection::vec(row, 0..12).prop_map(|rows| {
        let row = |(traits, errno, pid, comm, buffers, bytes): (u32, i32, Option<u32>, String, u64, u64)| Judged {
            traits: Traits(traits),
            errno,
            pid: pid.map(Pid::from),
            filesystem: pid.map(|_| comm.clone()),
            comm,
            class: Some(Class::File),
            buffers,
            bytes,
        };
        rows.into_iter().map(row).collect()
    });
    (figure(), others, figure(), policy, "\\PC{0,80}").prop_map(|(clean, others, unjudged, kernel_policy, why)| {
        Judgements { clean, rolled_back: unjudged, others, unjudged, kernel_policy, kernel_policy_why: why }
    })
}

fn any_cell() -> impl Strategy<Value = CostCell> {
    (0_u32..16, 0_u32..20, prop::collection::vec(figure(), 6), any::<[Option<u64>; 2]>()).prop_map(
        |(vmas, pages, figures, [slow, slow_ns])| CostCell {
            vmas_from: 1 << vmas,
            vmas_to: (2 << vmas) - 1,
            pages_from: 1 << pages,
            pages_to: if pages == 19 { u64::MAX } else { (2 << pages) - 1 },
            buffers: figures[0],
            vmas: figures[1],
            bytes: figures[2],
            pin_ns: figures[3],
            passes: figures[5],
            pass_vmas: figures[1],
            pass_ns: figures[4],
            faults: slow.map(|_| figures[5]),
            slow,
            slow_ns,
        },
    )
}

fn any_ring() -> impl Strategy<Value = Ring> {
    (0_u32..4, "\\PC{0,20}", any::<Option<i32>>(), prop::collection::vec(figure(), 7), any::<Option<u64>>()).prop_map(
        |(pid, comm, fd, figures, age)| Ring {
            pid: pid.into(),
            comm,
            fd,
            flags: None,
            registers: figures[0],
            updates: figures[1],
            clones: figures[2],
            unregisters: figures[3],
            failed: figures[4],
            after_requests: Some(figures[5]),
            fills: Some(figures[1]),
            fills_after_requests: Some(figures[5]),
            switches: Some(figures[0]),
            switch_gaps: Some(figures[0]),
            switch_span_ns: Some(figures[6]),
            first_age_ns: age,
            last_age_ns: age,
            span_ns: figures[6],
            shortest_gap_ns: age,
            gaps: figures[0],
            from_ns: figures[1],
            last_ns: figures[2],
            ended: age.is_some(),
            indexed: fd.is_none(),
        },
    )
}

/// Snapshots with anything in the fields that the questions look at.
pub(crate) fn any_snapshot() -> impl Strategy<Value = Snapshot> {
    let rings =
        (prop::collection::vec(any_ring(), 0..12), prop::collection::vec(figure(), 0..9), any::<bool>(), figure());
    let rings = rings.prop_map(|(list, numbers, kept, unlisted)| Rings {
        age: values(&numbers),
        gap: values(&numbers),
        ordinal: values(&numbers),
        unlisted: Some(unlisted),
        list: kept.then_some(list),
    });
    let largest = ("\\PC{0,20}", figure()).prop_map(|(comm, vmas)| Largest { vmas, comm, ..Largest::default() });
    let file = ("\\PC{0,80}", figure()).prop_map(|(name, buffers)| SharedBufferFile {
        pid: 1.into(),
        comm: name.clone(),
        filesystem: Some(name.clone()),
        name,
        inode: buffers,
        buffers,
    });
    let habits = prop::collection::vec(figure(), 14).prop_map(|figures| Habits {
        enomem: Some(figures[0]),
        minor_faults: Some(figures[1]),
        major_faults: Some(figures[2]),
        faulting_pin_ns: Some(figures[3]),
        faulting_bytes: Some(figures[4]),
        untold_faults: Some(figures[2]),
        large_buffers: figures[5],
        large_bytes: figures[6],
        large_bvecs: figures[7],
        adjacent_buffers: figures[8],
        adjacent_bytes: figures[9],
        long_lists: figures[10],
        repeated: figures[11],
        repeated_ns: figures[12],
        elsewhere: figures[2],
        elsewhere_ns: figures[3],
        many_vma_buffers: Some(figures[13]),
        many_vmas: Some(figures[0]),
        many_vma_lookups: Some(figures[4]),
        many_vma_pin_ns: Some(figures[1]),
    });
    (
        (any_sample(), any_capabilities()),
        prop::option::of(rings),
        prop::option::of(prop::collection::vec(any_cell(), 0..12)),
        prop::option::of(any_judgements()),
        prop::option::of(largest),
        prop::option::of(prop::collection::vec(file, 0..5)),
        prop::option::of(habits),
    )
        .prop_map(|((sample, capabilities), rings, costs, judgements, largest, files, habits)| {
            let mut snapshot = fold(&sample, &capabilities);
            for process in snapshot.processes.iter_mut().flatten() {
                process.habits.clone_from(&habits);
            }
            Snapshot {
                rings,
                costs,
                judgements,
                largest_registration: largest.clone(),
                largest_buffer: largest,
                shared_buffer_files: files,
                ..snapshot
            }
        })
}

proptest! {
    #[test]
    fn only_what_was_seen_is_answered(snapshot in any_snapshot()) {
        let answers = answers(&snapshot, &context());
        prop_assert_eq!(answers.iter().map(|answer| answer.id).collect::<Vec<_>>(), ["Q1", "Q2", "Q3", "Q4", "Q5", "Q7"]);
        for answer in answers {
            let unanswerable = matches!(answer.state, State::Unanswerable { .. });
            prop_assert_eq!(answer.verdict.is_none(), unanswerable);
            prop_assert_eq!(answer.state.why().is_empty(), answer.state == State::Answered);
            prop_assert!(unanswerable || answer.evidence.n.is_some_and(|n| n > 0), "{}", answer.id);
            prop_assert!(unanswerable == answer.evidence.n.is_none());
            prop_assert!(answer.verdict.iter().all(|verdict| verdict.ends_with('.')));
            prop_assert!(answer.evidence.tables.iter().all(|table| table.rows.iter().all(|row| row.len() == table.columns.len())));
            prop_assert!(State::NAMES.contains(&answer.state.name()));
        }
    }

    #[test]
    fn every_process_is_explained(snapshot in any_snapshot()) {
        let told = explanations(&snapshot, &context());
        prop_assert_eq!(told.map(|told| told.len()), snapshot.processes.map(|processes| processes.len()));
    }
}
