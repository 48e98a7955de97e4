use tracer_ebpf::{
    audit::rules,
    backing::{Class, Kind, Rule},
};

use super::*;

fn key(function: Gup, flags: u8, kind: Kind) -> AuditKey {
    AuditKey {
        function: function as u8,
        flags,
        kind: kind.0,
        rules: rules(kind.traits(true)),
        sight: RangeCoverage::Whole as u8,
        stack: 1,
        comm: *b"fio\0\0\0\0\0\0\0\0\0\0\0\0\0",
        ..AuditKey::default()
    }
}

fn totals(calls: u64) -> AuditTotals {
    AuditTotals { calls, asked: 4 * calls, got: 3 * calls, time_ns: 1000 * calls, vmas: calls, own_ns: 100 }
}

fn places() -> BTreeMap<u64, Place> {
    let place = |function: &str, module: Option<&str>| Place {
        function: function.to_owned(),
        offset: 4,
        module: module.map(str::to_owned),
    };
    BTreeMap::from([
        (10, place("bpf_prog_1_enter", Some("bpf"))),
        (19, place("pin_user_pages_fast", None)),
        (29, place("ib_umem_get", Some("ib_uverbs"))),
        (39, place("do_syscall_64", None)),
        (49, place("mem_rw.isra.0", None)),
    ])
}

fn context() -> Context {
    let function = |name: &str| Audited { function: name.to_owned(), mechanism: Some("fentry"), why: String::new() };
    Context {
        elapsed_ns: 1,
        places: Ok(places()),
        functions: vec![function("pin_user_pages"), function("get_user_pages")],
        degraded: Vec::new(),
        no_statistics: None,
    }
}

fn sample(calls: &[(AuditKey, u64)]) -> AuditSample {
    AuditSample {
        calls: calls.iter().map(|(key, calls)| (*key, totals(*calls))).collect(),
        stacks: BTreeMap::from([(1, vec![10, 20, 30, 40])]),
        ..AuditSample::default()
    }
}

#[test]
fn the_caller_is_the_first_outside_of_the_family() {
    let key = key(Gup::PinFast, flag::WRITE | flag::LONGTERM, Kind::new(Class::Anon, false, true));
    let failed = AuditKey { error: 14, ..key };
    let audit = fold(&sample(&[(key, 5), (failed, 2)]), &context());
    let [row] = &audit.rows[..] else { panic!("{:?}", audit.rows) };
    assert_eq!((row.caller.as_deref(), row.module.as_deref()), (Some("ib_umem_get"), Some("ib_uverbs")));
    assert_eq!(row.flags, ["FOLL_PIN", "FOLL_LONGTERM", "FOLL_WRITE"]);
    assert_eq!((row.calls, row.failed, row.pages_asked, row.pages), (7, 2, 28, 21));
    assert_eq!(row.errors, BTreeMap::from([("EFAULT".to_owned(), 2)]));
    let chain: Vec<_> = row.chains[0].steps.iter().map(|step| step.function.as_str()).collect();
    assert_eq!(chain, ["ib_umem_get", "do_syscall_64"]);
    assert_eq!((row.comm.as_str(), row.backing.class, audit.answer), ("fio", Some("anon"), Answer::Answered));
}

#[test]
fn a_rule_asks_for_flags_and_backing() {
    let shared = Kind::new(Class::File, true, true).under(Rule::Tracked);
    let private = Kind::new(Class::File, false, true);
    let judged = |function, flags, kind, sight: RangeCoverage| {
        let key = AuditKey { sight: sight as u8, ..key(function, flags, kind) };
        let refused = fold(&sample(&[(key, 3)]), &context()).rows[0].refused;
        (refused.as_proposed, refused.since_6_5)
    };
    let both = flag::WRITE | flag::LONGTERM;
    assert_eq!(judged(Gup::Pin, both, shared, RangeCoverage::Whole), (Some(3), Some(3)));
    assert_eq!(judged(Gup::Pin, both, private, RangeCoverage::Whole), (Some(3), Some(0)));
    assert_eq!(judged(Gup::Pin, flag::WRITE, shared, RangeCoverage::Whole), (Some(3), Some(0)));
    assert_eq!(judged(Gup::GetFast, both, shared, RangeCoverage::Part), (Some(3), Some(0)));
    assert_eq!(judged(Gup::Pin, 0, shared, RangeCoverage::Whole), (Some(0), Some(0)));
    let anon = Kind::new(Class::Anon, false, true);
    assert_eq!(judged(Gup::Pin, both, anon, RangeCoverage::Whole), (Some(0), Some(0)));
    assert_eq!(judged(Gup::Pin, both, anon, RangeCoverage::Part), (None, None));
    assert_eq!(judged(Gup::PinRemote, flag::WRITE, Kind(0), RangeCoverage::Remote), (None, Some(0)));
}

#[test]
fn the_proposal_exempted_some_callers() {
    let shared = Kind::new(Class::File, true, true).under(Rule::Tracked);
    let key = key(Gup::Pin, flag::WRITE | flag::LONGTERM, shared);
    let by_another = AuditKey { stack: 2, ..key };
    let mut both = sample(&[(key, 3), (by_another, 2)]);
    both.stacks.insert(2, vec![10, 20, 30, 50, 40]);
    let row = &fold(&both, &context()).rows[0];
    assert_eq!((row.refused.as_proposed, row.refused.since_6_5, row.exempt), (Some(3), Some(5), 2));
    // Whose calls they are has to be known.
    let unknown = fold(&AuditSample { stacks: BTreeMap::new(), ..sample(&[(key, 3)]) }, &context());
    assert_eq!((unknown.rows[0].refused.as_proposed, unknown.refused.since_6_5), (None, Some(3)));
}

#[test]
fn what_is_not_known_degrades_the_answer() {
    let key = key(Gup::Pin, 0, Kind::new(Class::Anon, false, true));
    let hidden = Context { places: Err(kernel::Unknown("hidden".to_owned())), ..context() };
    let audit = fold(&sample(&[(key, 1)]), &hidden);
    assert_eq!((audit.answer, audit.rows[0].caller.as_deref()), (Answer::Degraded, None));
    let nothing = Context { functions: Vec::new(), ..context() };
    let audit = fold(&sample(&[]), &nothing);
    assert_eq!((audit.answer, audit.refused.as_proposed), (Answer::Unanswerable, None));
    let audit = fold(&sample(&[]), &context());
    assert_eq!((audit.answer, audit.refused.as_proposed), (Answer::Answered, Some(0)));
    let mut lost = sample(&[(key, 1)]);
    lost.counters[AuditCounter::LostRows as usize] = 4;
    assert_eq!(fold(&lost, &context()).degraded.len(), 1);
}
