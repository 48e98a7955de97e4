use std::collections::BTreeSet;

use proptest::{prelude::*, sample::subsequence};

use tracer_ebpf::operation::Operation;

use super::*;
use crate::{
    figure::{Availability, Figure},
    kernel::{Facts, Hierarchy, Lockdown, Prototype, Traceable, Trial, Unknown, fixture},
    probe::{mode::AttachMode, offsets, table},
};

fn programs(plan: &Plan) -> Vec<&str> {
    plan.hooks.iter().map(|hook| hook.program.as_str()).collect()
}

fn choice(plan: &Plan, role: Role) -> &Choice {
    plan.choices.iter().find(|choice| choice.role == role).expect("every role has a choice")
}

fn hooked(plan: &Plan, role: Role) -> &str {
    match &choice(plan, role).chosen {
        Outcome::Hooked(function) => function,
        other => panic!("{role:?}: {other:?}"),
    }
}

fn passed_over<'a>(plan: &'a Plan, role: Role, function: &str) -> &'a str {
    let found = choice(plan, role).passed_over.iter().find(|(name, _)| name == function);
    &found.expect("it was passed over").1
}

fn with(attach: AttachMode) -> Wish {
    Wish { attach, ..Wish::default() }
}

fn lines(plan: &Plan) -> Vec<String> {
    plan.errors.iter().map(ToString::to_string).collect()
}

#[test]
fn each_kernel_gets_its_pin_and_its_look_up() {
    let expected = [
        ("pin_user_pages", "find_extend_vma"),
        ("pin_user_pages", "check_vma_flags"),
        ("io_pin_pages", "gup_vma_lookup"),
        ("io_pin_pages", "gup_vma_lookup"),
        ("io_pin_pages", "gup_vma_lookup"),
        ("io_pin_pages", "gup_vma_lookup"),
        ("io_pin_pages", "gup_vma_lookup"),
    ];
    for (facts, (pin, lookup)) in fixture::all().iter().zip(expected) {
        let plan = plan(facts, &Wish::default());
        let release = &facts.release.text;
        assert_eq!((hooked(&plan, Role::Pin), hooked(&plan, Role::Lookup)), (pin, lookup), "{release}");
        assert!(plan.errors.is_empty(), "{release}: {:?}", plan.errors);
        assert_eq!(plan.settings.kernel.pin_is_buffer, 0, "{release}");
    }
}

#[test]
fn a_lean_plan_hooks_no_buffer_where_the_pin_tells_its_range() {
    for facts in fixture::all() {
        let plan = plan(&facts, &Wish { lean: true, lookups: false, ..Wish::default() });
        let release = &facts.release.text;
        let telling = hooked(&plan, Role::Pin) == "io_pin_pages";
        assert_eq!(plan.settings.kernel.pin_is_buffer, u8::from(telling), "{release}");
        assert_eq!(plan.hooks.iter().any(|hook| hook.role == Role::Buffer), !telling, "{release}");
        let enters = |program: &str| plan.hooks.iter().any(|hook| hook.program.starts_with(program));
        assert_eq!(enters("pin_enter_buffer_"), telling, "{release}");
    }
}

#[test]
fn newer_kernels_give_all_and_5_10_says_what_it_cannot() {
    for facts in fixture::all().iter().skip(1) {
        let plan = plan(facts, &Wish::default());
        assert_eq!(plan.verdict(), Verdict::Full, "{}: {:?}", facts.release.text, plan.figures);
        assert!(!plan.legacy_frames);
    }
    let old = plan(&fixture::debian_5_10(), &Wish::default());
    assert_eq!(old.verdict(), Verdict::Degraded);
    let figures: Vec<_> = old.figures.lacks().iter().map(|lack| lack.figures.names()).collect();
    assert_eq!(
        figures,
        [
            "duration of unregister",
            "time of accounting",
            "what is registered now",
            "waits for mmap_lock",
            "page faults of hugetlb pages",
            "VMAs touched",
            "backings",
            "distinct files",
        ]
    );
    assert_eq!(choice(&old, Role::Registration(Operation::Clone)).chosen, Outcome::NotApplicable);
    assert!(old.legacy_frames);
}

#[test]
fn the_programs_of_6_12_by_fentry() {
    let plan = plan(&fixture::debian_6_12(), &Wish::default());
    let expected = [
        "register_enter_fentry",
        "register_exit_fexit",
        "update_enter_fentry",
        "update_exit_fexit",
        "clone_enter_fentry",
        "clone_exit_fexit",
        "unregister_enter_fentry",
        "unregister_exit_fexit",
        "buffer_enter_fentry",
        "buffer_exit_fexit",
        "pin_enter_fentry",
        "pin_exit_fexit",
        "lookup_enter_fentry",
        "lookup_exit_fexit",
        "fault_enter_fentry",
        "fault_exit_fexit",
        "accounting_enter_fentry",
        "accounting_exit_fexit",
        "release_enter_fentry",
        "call_enter_fentry",
        "call_exit_fexit",
        "list_table",
        "rings_of_files",
        "rings_of_indexes",
        "ledger",
        "ring_created",
        "lock_wanted",
        "lock_returned",
    ];
    assert_eq!(programs(&plan), expected);
}

#[test]
fn the_programs_of_5_10_by_kprobe_do_not_walk() {
    let plan = plan(&fixture::debian_5_10(), &with(AttachMode::Kprobe));
    let expected = [
        "register_enter_kprobe",
        "register_exit_kretprobe",
        "update_enter_kprobe",
        "update_exit_kretprobe",
        "buffer_enter_plain_kprobe",
        "buffer_exit_plain_kretprobe",
        "pin_enter_kprobe",
        "pin_exit_kretprobe",
        "lookup_enter_kprobe",
        "lookup_exit_kretprobe",
        "fault_enter_kprobe",
        "fault_exit_kretprobe",
        "call_enter_kprobe",
        "call_exit_kretprobe",
        "ledger",
        "ring_created",
    ];
    assert_eq!(programs(&plan), expected);
}

#[test]
fn tables_are_read_by_the_kernels_own_layout() {
    let of = |facts: &Facts| {
        let kernel = plan(facts, &Wish::default()).settings.kernel;
        (kernel.table_nodes, kernel.imu_length, kernel.imu_kernel)
    };
    let with = |mut facts: Facts, members: &[(&str, Option<u32>)]| {
        let offsets = &mut facts.types.as_mut().expect("types").offsets;
        for (member, offset) in members {
            match offset {
                Some(offset) => offsets.insert(format!("io_mapped_ubuf.{member}"), *offset),
                None => offsets.remove(&format!("io_mapped_ubuf.{member}")),
            };
        }
        facts
    };
    // As their BTF has them.
    let old = [("len", None), ("is_kbuf", None), ("flags", None)];
    assert_eq!(of(&with(fixture::debian_6_1(), &old)), (0, 0, 0));
    let words = [("ubuf_end", None), ("len", Some(8)), ("nr_bvecs", Some(12)), ("is_kbuf", None), ("flags", None)];
    assert_eq!(of(&with(fixture::debian_6_12(), &words)), (0, 4, 0));
    let bools = [("ubuf_end", None), ("len", Some(8)), ("nr_bvecs", Some(12)), ("flags", None)];
    assert_eq!(of(&with(fixture::debian_6_16(), &bools)), (1, 4, 1));
    let long = [("ubuf_end", None), ("len", Some(8)), ("nr_bvecs", Some(16)), ("is_kbuf", None)];
    assert_eq!(of(&with(fixture::debian_7_3(), &long)), (1, 8, 2));
    let unknown = plan(&with(fixture::debian_6_1(), &[("len", None), ("ubuf_end", None)]), &Wish::default());
    assert!(unknown.hooks.iter().all(|hook| !matches!(hook.role, Role::Release | Role::Table)));
    assert!(unknown.figures.missing(Figure::Registered).is_some());
}

#[test]
fn what_was_there_before_is_found_from_the_initial_namespace_alone() {
    let lost = |plan: &Plan| plan.figures.of(Figure::RegisteredBefore) != Availability::Available;
    assert!(!lost(&plan(&fixture::debian_6_12(), &Wish::default())));
    let inner = Facts { pid_namespace: Ok(0xf000_0001), ..fixture::debian_6_12() };
    assert!(lost(&plan(&inner, &Wish::default())));
    let mut without = fixture::debian_6_12();
    without.types.as_mut().expect("types").ids.remove("bpf_iter_task_file");
    let plan = plan(&without, &Wish::default());
    assert!(lost(&plan) && plan.hooks.iter().any(|hook| hook.program == "list_table"));
}

#[test]
fn a_daemon_hooks_nothing_that_bystanders_pass() {
    let wish = Wish {
        lookups: false,
        ring: false,
        registration_returns: false,
        locks: false,
        phases: false,
        ..Wish::default()
    };
    let plan = plan(&fixture::debian_6_12(), &wish);
    assert_eq!(plan.verdict(), Verdict::Full);
    assert!(programs(&plan).iter().all(|p| !p.starts_with("lookup") && !p.starts_with("register_exit")));
    assert_eq!(plan.settings.kernel.registration_returns, 0);
    assert_eq!(plan.hooks.iter().filter(|h| h.kind == Kind::RawTracepoint).count(), 1);
    assert_eq!(choice(&plan, Role::Lookup).chosen, Outcome::NotWanted);
}

#[test]
fn the_settings_follow_the_prototypes() {
    let kernel = |facts: &Facts| plan(facts, &Wish::default()).settings.kernel;
    let (old, middle, new) =
        (kernel(&fixture::debian_5_10()), kernel(&fixture::debian_6_12()), kernel(&fixture::debian_7_3()));
    assert_eq!([old, middle, new].map(|k| k.buffer_returns_node), [0, 0, 1]);
    assert_eq!([old, middle, new].map(|k| k.ledger_ret), [5, 4, 4]);
    assert_eq!([old, middle, new].map(|k| (k.ledger, k.registration_returns)), [(1, 1); 3]);
    assert_eq!([old, middle, new].map(|k| (k.task_storage, k.func_ret)), [(0, 0), (1, 1), (1, 1)]);
    assert_eq!([old, middle, new].map(|k| k.folio_shift), [0, 1, 1]);
}

#[test]
fn the_result_of_the_ledger_is_found_without_names_too() {
    let mut facts = fixture::debian_5_10();
    let types = facts.types.as_mut().expect("types");
    let ledger = types.tracepoints.get_mut("io_uring_register").expect("a tracepoint");
    ledger.parameters.iter_mut().for_each(|parameter| parameter.name.clear());
    assert_eq!(plan(&facts, &Wish::default()).settings.kernel.ledger_ret, 5);
    let types = facts.types.as_mut().expect("types");
    let ledger = types.tracepoints.get_mut("io_uring_register").expect("a tracepoint");
    ledger.parameters[4].kind = "long".to_owned();
    let plan = plan(&facts, &Wish::default());
    assert!(!programs(&plan).contains(&"ledger"));
    assert_eq!((plan.settings.kernel.ledger, plan.verdict()), (0, Verdict::Degraded));
}

#[test]
fn a_renamed_function_is_named_and_its_figures_are_lost() {
    let plan = plan(&fixture::renamed("io_sqe_buffer_register"), &Wish::default());
    assert_eq!(
        passed_over(&plan, Role::Buffer, "io_sqe_buffer_register"),
        "renamed by the compiler to io_sqe_buffer_register.isra.0: its arguments may have changed"
    );
    assert_eq!(plan.verdict(), Verdict::Degraded);
    assert!(plan.figures.missing(Figure::Vmas).is_some_and(|reason| reason.contains(".isra.0")));
    assert!(programs(&plan).iter().all(|program| !program.starts_with("buffer")));
}

#[test]
fn a_prototype_that_differs_is_an_error_that_shows_both() {
    let facts = fixture::with_prototype("io_sqe_buffers_register", "int (struct io_ring_ctx *, unsigned int)");
    let plan = plan(&facts, &Wish::default());
    let line = &lines(&plan)[0];
    assert!(line.contains("this kernel `int (struct io_ring_ctx *, unsigned int)`"), "{line}");
    assert!(line.contains("the probe `int (struct io_ring_ctx *, void *, unsigned int, u64 *)`"), "{line}");
    assert!(programs(&plan).iter().all(|program| !program.starts_with("register")));
    assert_eq!(plan.verdict(), Verdict::Degraded);
}

#[test]
fn a_tracepoint_that_differs_is_an_error_too() {
    let mut facts = fixture::debian_6_12();
    let types = facts.types.as_mut().expect("types");
    types.tracepoints.insert("io_uring_create".to_owned(), Prototype::parse("void (void *)"));
    let plan = plan(&facts, &Wish::default());
    assert!(lines(&plan)[0].starts_with("io_uring_create has another prototype"));
    assert!(!programs(&plan).contains(&"ring_created"));
}

#[test]
fn a_later_candidate_takes_the_place_of_an_earlier_one() {
    let wish = Wish { avoid: vec!["gup_vma_lookup".to_owned()], ..Wish::default() };
    let plan = plan(&fixture::debian_6_12(), &wish);
    assert_eq!(hooked(&plan, Role::Lookup), "check_vma_flags");
    assert_eq!(passed_over(&plan, Role::Lookup, "gup_vma_lookup"), "avoided on request");
    assert!(passed_over(&plan, Role::Lookup, "vma_lookup").starts_with("not in kallsyms"));
    assert!(passed_over(&plan, Role::Pin, "pin_user_pages").contains("6.5"));
}

#[test]
fn what_is_not_traceable_is_passed_over() {
    let mut facts = fixture::debian_6_12();
    if let Traceable::List(list) = &mut facts.traceable {
        list.remove("io_pin_pages");
    }
    let plan = plan(&facts, &Wish::default());
    assert!(passed_over(&plan, Role::Pin, "io_pin_pages").contains("not among the functions"));
    assert_eq!(choice(&plan, Role::Lookup).chosen, Outcome::Lost);
    assert_eq!(plan.verdict(), Verdict::Degraded);
}

#[test]
fn without_trampolines_kprobes_and_without_either_nothing() {
    let mut facts = fixture::debian_6_12();
    facts.traceable = Traceable::NoFtrace;
    assert_eq!(plan(&facts, &Wish::default()).mechanism, Some(Mechanism::Kprobe));
    let forced = plan(&facts, &with(AttachMode::Fentry));
    assert_eq!(forced.verdict(), Verdict::Nothing);
    assert_eq!(lines(&forced), ["--attach fentry: the kernel is built without function tracing; take --attach kprobe"]);

    facts.kprobe_pmu = Ok(false);
    let nothing = plan(&facts, &Wish::default());
    assert_eq!((nothing.verdict(), nothing.hooks.len()), (Verdict::Nothing, 0));
    assert!(nothing.withheld.iter().any(|hook| hook.function == "io_sqe_buffers_register"));
    let expected = "no function can be hooked here: fentry: the kernel is built without function tracing; \
                    kprobe: the kernel has no kprobes; it takes a kernel that \
                    allows either (CONFIG_FUNCTION_TRACER or CONFIG_KPROBE_EVENTS)";
    assert_eq!(lines(&nothing), [expected]);
}

#[test]
fn a_kernel_that_preempts_is_hooked_by_what_it_does_not_skip() {
    let mut facts = fixture::debian_6_16();
    let whole = plan(&facts, &Wish::default());
    assert_eq!((whole.mechanism, whole.verdict()), (Some(Mechanism::Multi), Verdict::Full));
    let kinds: BTreeSet<_> = whole.hooks.iter().map(|hook| hook.kind.name()).collect();
    assert!(kinds.is_superset(&["kprobe.multi", "kretprobe.multi"].into()), "{kinds:?}");
    assert!(kinds.is_disjoint(&["kprobe", "kretprobe", "fentry", "fexit"].into()), "{kinds:?}");
    // Whoever asks for trampolines is told what they missed when they did.
    assert_eq!(plan(&facts, &with(AttachMode::Fentry)).verdict(), Verdict::Full);
    assert_eq!(plan(&fixture::debian_6_12(), &Wish::default()).mechanism, Some(Mechanism::Fentry));

    facts.multi = Trial::Absent;
    assert_eq!(plan(&facts, &Wish::default()).mechanism, Some(Mechanism::Kprobe));
    let short = plan(&fixture::holding(facts, &["CAP_BPF", "CAP_PERFMON"]), &Wish::default());
    assert_eq!((short.mechanism, short.verdict()), (Some(Mechanism::Fentry), Verdict::Degraded));
    let reason = &short.figures.lacks()[0].reason;
    assert!(reason.contains("CONFIG_FPROBE") && reason.contains("perf_event_paranoid is 3"), "{reason}");
}

#[test]
fn without_perf_events_the_ledger_is_the_system_calls_return() {
    let mut facts = fixture::holding(without_system_call(fixture::debian_7_3()), &["CAP_BPF", "CAP_PERFMON"]);
    let of = |facts: &Facts, role: Role| {
        let hooks = plan(facts, &Wish::default()).hooks.into_iter().filter(|hook| hook.role == role);
        hooks.map(|hook| (hook.program, hook.kind)).collect::<Vec<_>>()
    };
    let ledger = |facts: &Facts| of(facts, Role::Ledger);
    assert_eq!(ledger(&facts), [("ledger".to_owned(), Kind::RawTracepoint)]);
    let functions = &mut facts.types.as_mut().unwrap().functions;
    for (function, _) in table::LEDGER_RETURNS {
        functions.insert(function.to_owned(), vec![Prototype::parse(table::SYSTEM_CALL)]);
    }
    let returns = table::LEDGER_RETURNS.map(|(_, program)| (program.to_owned(), Kind::MultiReturn));
    assert_eq!(ledger(&facts), returns);
    let enter = ("call_enter_kprobe".to_owned(), Kind::Multi);
    assert_eq!(of(&facts, Role::Call), std::slice::from_ref(&enter), "the ledger closes what it opens");
    facts.privileges.perf_event_paranoid = Ok(2);
    assert_eq!(ledger(&facts), [("ledger_classic".to_owned(), Kind::Tracepoint)]);
    assert_eq!(of(&facts, Role::Call), [enter, ("call_exit_kretprobe".to_owned(), Kind::MultiReturn)]);
}

fn without_system_call(mut facts: Facts) -> Facts {
    let functions = &mut facts.types.as_mut().unwrap().functions;
    functions.retain(|function, _| !table::LEDGER_RETURNS.iter().any(|(name, _)| name == function));
    facts
}

#[test]
fn a_refusal_counts_only_where_the_privileges_are_held() {
    let mut facts = fixture::debian_6_12();
    facts.fentry = Trial::Refused("bpf_prog_load: EPERM".to_owned());
    assert_eq!(plan(&facts, &Wish::default()).mechanism, Some(Mechanism::Kprobe));
    let facts = fixture::holding(facts, &[]);
    let plan = plan(&facts, &Wish::default());
    assert_eq!((plan.mechanism, plan.verdict()), (Some(Mechanism::Fentry), Verdict::Nothing));
    let lines = lines(&plan);
    assert!(lines[0].starts_with("CAP_BPF is missing") && lines[1].starts_with("CAP_PERFMON is missing"), "{lines:?}");
}

#[test]
fn the_privileges_are_those_found_on_debian() {
    // Capabilities, perf_event_paranoid, mechanism, and the verdict of the table of privileges.
    let table: [(&[&str], i32, AttachMode, Verdict); 6] = [
        (&["CAP_BPF", "CAP_PERFMON"], 3, AttachMode::Fentry, Verdict::Full),
        (&["CAP_BPF", "CAP_PERFMON"], 3, AttachMode::Kprobe, Verdict::Nothing),
        (&["CAP_BPF", "CAP_PERFMON"], 2, AttachMode::Kprobe, Verdict::Full),
        (&["CAP_BPF", "CAP_PERFMON", "CAP_SYS_ADMIN"], 3, AttachMode::Kprobe, Verdict::Full),
        (&["CAP_SYS_ADMIN"], 3, AttachMode::Auto, Verdict::Full),
        (&["CAP_BPF"], 2, AttachMode::Auto, Verdict::Nothing),
    ];
    for (capabilities, paranoid, attach, verdict) in table {
        let mut facts = fixture::holding(fixture::debian_6_12(), capabilities);
        facts.privileges.perf_event_paranoid = Ok(paranoid);
        let plan = plan(&facts, &with(attach));
        assert_eq!(plan.verdict(), verdict, "{capabilities:?} {paranoid} {attach:?}: {:?}", plan.errors);
    }
}

#[test]
fn memlock_matters_before_5_11_only_and_only_where_it_cannot_be_raised() {
    let caps = ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_ADMIN"];
    let old = fixture::holding(fixture::debian_5_10(), &caps);
    let line = &lines(&plan(&old, &Wish::default()))[0];
    assert!(line.starts_with("CAP_SYS_RESOURCE is missing: the limit of 64 KiB"), "{line}");
    assert!(plan(&fixture::holding(fixture::debian_6_1(), &caps), &Wish::default()).errors.is_empty());
    let unlimited = Facts { privileges: crate::kernel::Privileges { memlock: None, ..old.privileges.clone() }, ..old };
    assert!(plan(&unlimited, &Wish::default()).errors.is_empty());
}

#[test]
fn lockdown_no_btf_and_an_old_kernel_each_have_their_line() {
    let mut facts = fixture::debian_6_12();
    facts.privileges.lockdown = Ok(Lockdown::Confidentiality);
    assert!(lines(&plan(&facts, &Wish::default()))[0].starts_with("lockdown is at confidentiality"));

    let mut facts = fixture::debian_6_12();
    facts.types = Err(Unknown("/sys/kernel/btf/vmlinux: not there".to_owned()));
    let blind = plan(&facts, &Wish::default());
    assert_eq!((blind.verdict(), blind.hooks.len()), (Verdict::Nothing, 0));
    assert!(blind.withheld.iter().any(|hook| hook.function == "io_pin_pages"));
    assert!(lines(&blind)[0].starts_with("no kernel BTF (/sys/kernel/btf/vmlinux: not there)"));
    facts.types = Err(Unknown::new("/sys/kernel/btf/vmlinux", crate::kernel::btf::NO_MEMORY));
    let line = &lines(&plan(&facts, &Wish::default()))[0];
    assert!(line.ends_with("raise the limit of its memory, or free some") && !line.contains("CONFIG_"), "{line}");

    let mut facts = fixture::with_prototype("io_sqe_buffers_register", "int (struct io_ring_ctx *)");
    assert_eq!(plan(&facts, &Wish::default()).verdict(), Verdict::Degraded);
    facts.release = crate::kernel::Release::parse("5.4.0-1-amd64");
    assert!(lines(&plan(&facts, &Wish::default()))[0].starts_with("kernel 5.4.0-1-amd64 is too old"));
}

#[test]
fn no_way_to_walk_costs_the_vmas_and_nothing_else() {
    let mut facts = fixture::debian_6_12();
    facts.types.as_mut().expect("types").helpers.remove("find_vma");
    let plan = plan(&facts, &Wish::default());
    let figures: Vec<_> = plan.figures.lacks().iter().map(|lack| lack.figures.names()).collect();
    assert_eq!(figures, ["VMAs touched", "backings", "distinct files"]);
    assert!(programs(&plan).contains(&"buffer_enter_plain_fentry") && programs(&plan).contains(&"pin_enter_fentry"));
}

#[test]
fn cgroups_are_told_by_a_controller_where_that_is_wanted() {
    let wish = |controller| Wish { workloads: Some((9, Hierarchy { controller, mount: None })), ..Wish::default() };
    let of = |facts: &Facts, controller| plan(facts, &wish(controller));
    for facts in fixture::all() {
        let kernel = of(&facts, None).settings.kernel;
        assert_eq!((kernel.cgroup_names, kernel.cgroup_subsystem), (1, 0), "{}", facts.release.text);
        assert_eq!(of(&facts, Some("pids")).settings.kernel.cgroup_subsystem, 9);
    }
    let unknown = of(&fixture::debian_6_12(), Some("rdma"));
    assert_eq!(unknown.settings.kernel.cgroup_subsystem, 0);
    assert!(unknown.figures.shown().any(|lack| lack.contains("rdma")), "{:?}", unknown.figures);
    let mut facts = fixture::debian_6_12();
    facts.types.as_mut().expect("types").offsets.remove("css_set.subsys");
    assert!(of(&facts, Some("pids")).figures.shown().any(|lack| lack.contains("css_set.subsys")));
    // Before 6.15 the link to the parent has one name, since then another.
    let offsets = &mut facts.types.as_mut().expect("types").offsets;
    offsets.remove("kernfs_node.parent");
    assert_eq!(of(&facts, None).settings.kernel.cgroup_names, 1);
    facts.types.as_mut().expect("types").offsets.remove("kernfs_node.__parent");
    assert_eq!(of(&facts, None).settings.kernel.cgroup_names, 0);
}

#[test]
fn a_probe_whose_members_are_missing_is_not_hooked() {
    for (member, role) in [
        ("task_struct.min_flt", Role::Pin),
        ("io_mapped_ubuf.nr_bvecs", Role::Buffer),
        ("io_rsrc_node.buf", Role::Buffer),
    ] {
        let mut facts = fixture::debian_7_3();
        facts.types.as_mut().expect("types").offsets.remove(member);
        let plan = plan(&facts, &Wish::default());
        assert_eq!(choice(&plan, role).chosen, Outcome::Lost, "{member}");
        assert!(plan.figures.shown().any(|lack| lack.contains(member)), "{member}: {:?}", plan.figures);
    }
}

prop_compose! {
    /// Any kernel, with any part of what is known about it taken away.
    pub(crate) fn any_facts()(
        kernel in 0..fixture::all().len(),
        members in subsequence(offsets::MEMBERS.to_vec(), 0..4),
        functions in subsequence(table::wanted().functions.to_vec(), 0..6),
        tracepoints in subsequence(table::wanted().tracepoints.to_vec(), 0..3),
        helpers in subsequence(table::wanted().helpers.to_vec(), 0..4),
        capabilities in subsequence(vec!["CAP_BPF", "CAP_PERFMON", "CAP_SYS_ADMIN", "CAP_SYS_RESOURCE"], 0..=4),
        gone in prop::array::uniform8(prop::bool::weighted(0.2)),
        paranoid in -1..5,
    ) -> Facts {
        let mut facts = fixture::holding(fixture::all().swap_remove(kernel), &capabilities);
        let unknown = || Unknown("taken away".to_owned());
        facts.privileges.perf_event_paranoid = Ok(paranoid);
        if let Ok(types) = &mut facts.types {
            types.offsets.retain(|member, _| !members.contains(&member.as_str()));
            types.tracepoints.retain(|name, _| !tracepoints.contains(&name.as_str()));
            types.helpers.retain(|name| !helpers.contains(&name.as_str()));
            if gone[0] { types.functions.retain(|name, _| !functions.contains(&name.as_str())); }
            if gone[1] { types.structs.clear(); }
        }
        if let Ok(symbols) = &mut facts.symbols {
            symbols.functions.retain(|name, _| !functions.contains(&name.as_str()));
        }
        if gone[2] { facts.symbols = Err(unknown()); }
        if gone[3] { facts.types = Err(unknown()); }
        if gone[4] { facts.traceable = Traceable::Unknown("taken away".to_owned()); }
        if gone[5] { facts.kprobe_pmu = Err(unknown()); }
        if gone[6] { facts.privileges.lockdown = Err(unknown()); facts.fentry = Trial::NotTried; }
        if gone[7] { facts.privileges.capabilities = Err(unknown()); }
        facts
    }
}

prop_compose! {
    pub(crate) fn any_wish()(
        attach in prop::sample::select(vec![AttachMode::Auto, AttachMode::Fentry, AttachMode::Kprobe]),
        on in prop::array::uniform8(any::<bool>()),
        avoid in subsequence(table::wanted().functions.to_vec(), 0..3),
    ) -> Wish {
        let [lookups, ring, descent, registration_returns, lean, locks, phases, tables] = on;
        let avoid = avoid.into_iter().map(str::to_owned).collect();
        let workloads = phases.then_some((9, Hierarchy { controller: Some("memory"), mount: None }));
        Wish {
            attach,
            lookups,
            ring,
            tables,
            filters: Filters { descent, pid: descent.then_some((1, 1)), ..Filters::default() },
            registration_returns,
            lean,
            calls: ring,
            locks,
            phases,
            workloads,
            avoid,
            ..Wish::default()
        }
    }
}

proptest! {
    /// Whatever is missing: every role has an answer, nothing is hooked twice or against the wish, what is lost
    /// has a reason, and no offset is read that BTF did not give.
    #[test]
    fn a_plan_is_sound_whatever_is_missing(facts in any_facts(), wish in any_wish()) {
        let plan = plan(&facts, &wish);
        let mut programs = programs(&plan);
        programs.sort_unstable();
        programs.dedup();
        prop_assert_eq!(programs.len(), plan.hooks.len());
        prop_assert!(plan.hooks.iter().all(|hook| !wish.avoid.contains(&hook.function)));
        prop_assert!(plan.figures.lacks().iter().all(|lack| !lack.reason.is_empty() && !lack.reason.contains('\n')));
        prop_assert!(plan.errors.iter().all(|e| !e.to_string().contains('\n')));
        prop_assert_eq!(plan.verdict() == Verdict::Nothing, plan.hooks.is_empty());
        let Ok(types) = &facts.types else { return Ok(()) };
        prop_assert_eq!(plan.choices.len(), 15);
        for choice in &plan.choices {
            let has_hook = plan.hooks.iter().any(|hook| hook.role == choice.role);
            prop_assert!(!has_hook || matches!(choice.chosen, Outcome::Hooked(_)));
            prop_assert!(!choice.why.is_empty());
            prop_assert!(choice.chosen != Outcome::Lost || !plan.figures.is_whole());
        }
        let walks = plan.hooks.iter().any(|hook| hook.program.starts_with("buffer_enter_f")
            || hook.program.starts_with("buffer_enter_k")
            || hook.program.starts_with("pin_enter_buffer"));
        prop_assert!(!walks || offsets::missing(types, &offsets::WALK).is_none());
        prop_assert!(walks || plan.hooks.is_empty() || plan.figures.missing(Figure::Vmas).is_some());
    }
}

#[test]
fn the_ledger_is_a_perf_event_where_a_raw_tracepoint_would_miss_calls() {
    let ledger = |facts: &Facts| {
        let plan = plan(&without_system_call(facts.clone()), &Wish { calls: false, ..Wish::default() });
        let hook = plan.hooks.iter().find(|hook| hook.role == Role::Ledger).expect("a ledger");
        (hook.kind, plan.figures.lacks().first().map(|lack| lack.reason.to_string()).unwrap_or_default())
    };
    assert_eq!(ledger(&fixture::debian_6_16()), (Kind::RawTracepoint, String::new()));
    assert_eq!(ledger(&fixture::debian_7_0()), (Kind::Tracepoint, String::new()));

    let (kind, why) = ledger(&fixture::holding(fixture::debian_7_3(), &["CAP_BPF", "CAP_PERFMON"]));
    assert!(kind == Kind::RawTracepoint && why.contains("perf_event_paranoid"), "{why}");
    let (kind, why) = ledger(&Facts { ledger_event: Err(Unknown("no tracefs".to_owned())), ..fixture::debian_7_3() });
    assert!(kind == Kind::RawTracepoint && why.ends_with("no tracefs"), "{why}");
    let ring = |facts: &Facts| {
        let hooks = plan(facts, &Wish::default()).hooks;
        hooks
            .into_iter()
            .find(|hook| hook.role == Role::Ring)
            .map(|hook| (hook.program, hook.kind))
            .expect("a ring's hook")
    };
    assert_eq!(ring(&fixture::debian_6_16()), ("ring_created".to_owned(), Kind::RawTracepoint));
    assert_eq!(ring(&fixture::debian_7_0()), ("ring_created_classic".to_owned(), Kind::Tracepoint));
    let service = fixture::holding(fixture::debian_7_3(), &["CAP_BPF", "CAP_PERFMON"]);
    assert_eq!(ring(&service), ("ring_created".to_owned(), Kind::RawTracepoint));

    let mut moved = fixture::debian_7_3();
    moved.types.as_mut().expect("types").offsets.insert("trace_event_raw_io_uring_register.ret".to_owned(), 40);
    assert_eq!(ledger(&moved).0, Kind::RawTracepoint);
}

#[test]
fn the_position_of_write_follows_the_prototype() {
    let position = |facts: &Facts| plan(facts, &Wish::default()).settings.kernel.lock_write;
    assert_eq!([fixture::debian_6_1(), fixture::debian_6_12(), fixture::debian_7_3()].map(|f| position(&f)), [2, 2, 1]);

    let mut other = fixture::debian_7_3();
    let tracepoints = &mut other.types.as_mut().expect("types").tracepoints;
    let prototype = Prototype::parse("void (struct mm_struct *:mm, bool:success, bool:write)");
    tracepoints.insert("mmap_lock_acquire_returned".to_owned(), prototype);
    let plan = plan(&other, &Wish::default());
    assert_eq!(choice(&plan, Role::Lock).chosen, Outcome::Lost);
    assert!(programs(&plan).iter().all(|program| !program.starts_with("lock_")));
    assert!(lines(&plan)[0].starts_with("mmap_lock_acquire_returned has another prototype"));
}

#[test]
fn look_ups_are_timed_where_the_function_is_the_look_up() {
    let timed = |facts: &Facts| {
        let plan = plan(facts, &Wish::default());
        (programs(&plan).contains(&"lookup_exit_fexit"), no_lookup_times(&plan).is_some())
    };
    assert_eq!(timed(&fixture::debian_5_10()), (true, false));
    assert_eq!(timed(&fixture::debian_6_1()), (false, true));
    assert_eq!(timed(&fixture::debian_6_12()), (true, false));
    let slow = |facts: &Facts| plan(facts, &Wish::default()).settings.kernel.pin_is_slow;
    assert_eq!([fixture::debian_6_1(), fixture::debian_6_12()].map(|facts| slow(&facts)), [1, 0]);
}

/// A kernel without these members.
fn without(mut facts: Facts, members: &[&str]) -> Facts {
    for member in members {
        facts.types.as_mut().expect("types").offsets.remove(*member);
    }
    facts
}

#[test]
fn what_the_programs_leave_out_for_want_of_a_member_is_said() {
    for (member, figure) in [
        ("io_ring_ctx.cached_sq_head", Figure::Requests),
        ("io_ring_ctx.nr_user_bufs", Figure::UpdateKinds),
        ("file.f_path", Figure::FileNames),
        ("file.f_path", Figure::Overlays),
        ("dentry.d_sb", Figure::Overlays),
        ("backing_file.user_path", Figure::Overlays),
        ("inode.i_ino", Figure::FileNames),
        ("task_struct.mm", Figure::UnregisterDuration),
        ("sigpending.signal", Figure::LockWaits),
    ] {
        let plan = plan(&without(fixture::debian_6_12(), &[member]), &Wish::default());
        let reason = plan.figures.missing(figure).unwrap_or_else(|| panic!("{member}: {:?}", plan.figures));
        assert!(reason.contains(member), "{reason}");
        assert_eq!(plan.verdict(), Verdict::Degraded, "{member}");
    }
    let old = plan(&without(fixture::debian_6_1(), &["backing_file.user_path"]), &Wish::default());
    assert_eq!(old.verdict(), Verdict::Full, "there is none before 6.8");
}

#[test]
fn without_a_tasks_registers_calls_under_way_are_missing() {
    for member in offsets::UNDER_WAY {
        let less = plan(&without(fixture::debian_6_12(), &[member]), &Wish::default());
        assert_eq!(less.figures.missing(Figure::UnderWay), Some(&*format!("BTF has no {member}")));
        assert_eq!(less.verdict(), Verdict::Degraded, "{member}");
    }
}

/// What the plan does without, whatever it is asked for, and why nothing is lost with it.
const DISPENSABLE: [(&str, &str); 26] = [
    ("io_ring_ctx.nr_req_allocated", "a kernel before 6.16, where no ring rewinds its queue"),
    ("task_struct.bpf_storage", "the frames are in a hash then"),
    ("io_rsrc_node.buf", "a kernel before 6.13"),
    ("io_mapped_ubuf.folio_shift", "a kernel before 6.12"),
    ("io_mapped_ubuf.acct_pages", "a kernel since 7.2"),
    ("io_mapped_ubuf.is_kbuf", "a kernel before 6.15, or since 7.1"),
    ("io_mapped_ubuf.flags", "a kernel before 7.1"),
    ("io_mapped_ubuf.ubuf_end", "a kernel since 6.13: there is the length"),
    ("io_mapped_ubuf.len", "a kernel before 6.13: there is the end"),
    ("io_ring_ctx.buf_table", "a kernel before 6.13"),
    ("io_rsrc_data.nodes", "a kernel before 6.13"),
    ("io_rsrc_data.nr", "a kernel before 6.13"),
    ("kernfs_node.parent", "has another name since 6.15"),
    ("kernfs_node.__parent", "has another name before 6.15"),
    ("kernfs_node.name", "the cgroup is looked for among the folders then"),
    ("kernfs_node.id", "the cgroup is looked for among the folders then"),
    ("mm_struct.mm_mt", "the walk waits less long for a lock then"),
    ("maple_tree.ma_root", "likewise"),
    ("maple_range_64.pivot", "likewise"),
    ("maple_range_64.slot", "likewise"),
    ("maple_range_64.meta", "likewise"),
    ("maple_arange_64.pivot", "likewise"),
    ("maple_arange_64.slot", "likewise"),
    ("maple_arange_64.meta", "likewise"),
    ("vm_area_struct.vm_start", "likewise"),
    ("vm_area_struct.vm_mm", "likewise"),
];

/// Each member of each kernel: without it something is said to be missing, or it stands above.
#[test]
fn no_member_goes_without_a_word() {
    for facts in [fixture::debian_6_12(), fixture::debian_7_3()] {
        let facts = Facts { pid_namespace: Ok(0xf000_0001), ..facts };
        let wish = Wish {
            filters: Filters { descent: true, ..Filters::default() },
            workloads: Some((9, Hierarchy { controller: Some("memory"), mount: None })),
            ..Wish::default()
        };
        let whole = plan(&facts, &wish);
        let new = facts.release.is_from((7, 0));
        for member in offsets::MEMBERS {
            let less = plan(&without(facts.clone(), &[member]), &wish);
            let said = less.figures != whole.figures || less.errors != whole.errors;
            // Only since 7.0, and there the return of the system call can stand for it.
            let by_event = member.starts_with("trace_event_raw");
            let dispensable = DISPENSABLE.iter().any(|(known, _)| *known == member);
            let older = !new && member.starts_with("io_rsrc");
            let newer = new && ["io_ring_ctx.user_bufs", "io_ring_ctx.nr_user_bufs"].contains(&member);
            let told = said || dispensable || by_event || older || newer;
            assert!(told, "{member} of {}: nothing is said", facts.release.text);
        }
    }
}
