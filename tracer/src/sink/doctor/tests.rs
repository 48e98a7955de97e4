use super::*;
use crate::{
    kernel::{Lockdown, Traceable, Trial, Unknown, fixture},
    probe::{
        mode::AttachMode,
        plan::{Wish, plan},
    },
};

/// Every circumstance that the doctor has a line for.
fn circumstances() -> Vec<Facts> {
    let mut all = fixture::all();
    all.push(fixture::renamed("io_sqe_buffer_register"));
    all.push(fixture::with_prototype("pin_user_pages", "long (unsigned long, struct a_rather_long_name_of_a_type **)"));
    all.push(fixture::with_prototype("io_pin_pages", "struct page ** (unsigned long)"));
    all.push(fixture::holding(fixture::debian_6_12(), &[]));
    all.push(fixture::holding(fixture::debian_5_10(), &["CAP_SYS_ADMIN"]));
    all.push(nothing_to_hook());
    let mut blind = fixture::debian_6_12();
    let nowhere = || Unknown(format!("/sys/{}: No such file or directory (os error 2)", "x".repeat(100)));
    blind.types = Err(nowhere());
    blind.symbols = Err(nowhere());
    blind.kprobe_pmu = Err(nowhere());
    blind.privileges.lockdown = Err(nowhere());
    blind.privileges.capabilities = Err(nowhere());
    blind.privileges.perf_event_paranoid = Err(nowhere());
    blind.traceable = Traceable::Unknown("tracefs is not mounted".to_owned());
    all.push(blind);
    let mut locked = fixture::debian_6_12();
    locked.privileges.lockdown = Ok(Lockdown::Confidentiality);
    all.push(locked);
    all
}

fn nothing_to_hook() -> Facts {
    let mut facts = fixture::debian_6_12();
    facts.fentry = Trial::Refused("bpf_prog_load: Operation not permitted (os error 1)".to_owned());
    facts.kprobe_pmu = Ok(false);
    facts
}

fn shown(facts: &Facts) -> String {
    text(facts, &plan(facts, &Wish::default()))
}

/// The text without its line breaks.
fn flowing(facts: &Facts) -> String {
    shown(facts).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_text_fits_80_columns_and_says_all_of_the_plan() {
    for facts in circumstances() {
        for attach in [AttachMode::Auto, AttachMode::Kprobe, AttachMode::Fentry] {
            let plan = plan(&facts, &Wish { attach, ..Wish::default() });
            let text = text(&facts, &plan);
            for line in text.lines() {
                assert!(line.chars().count() <= 80 && !line.ends_with(' '), "{line:?} in\n{text}");
            }
            let flowing = text.split_whitespace().collect::<Vec<_>>().join("");
            let said = |what: &str| flowing.contains(&what.split_whitespace().collect::<Vec<_>>().join(""));
            assert!(plan.errors.iter().all(|error| said(&error.to_string())), "{text}");
            assert!(plan.figures.shown().all(|lack| said(&lack)), "{text}");
            for choice in &plan.choices {
                assert!(choice.passed_over.iter().all(|(f, why)| said(f) && said(why)), "{text}");
            }
            assert!(text.ends_with('\n') && said(&verdict(&plan)));
        }
    }
}

#[test]
fn the_exit_code_tells_full_degraded_and_nothing_apart() {
    let code = |facts: &Facts| exit_code(plan(facts, &Wish::default()).verdict());
    assert_eq!(code(&fixture::debian_6_12()), 0);
    assert_eq!(code(&fixture::debian_5_10()), 3);
    assert_eq!(code(&nothing_to_hook()), 4);
}

#[test]
fn a_kernel_that_lets_nothing_be_hooked_says_why_of_both_ways() {
    let text = flowing(&nothing_to_hook());
    let why = "error: no function can be hooked here: fentry: the system refuses fentry programs whatever the \
               privileges (bpf_prog_load: \
               Operation not permitted (os error 1)); kprobe: the kernel has no kprobes; it takes a kernel that \
                    allows either (CONFIG_FUNCTION_TRACER or CONFIG_KPROBE_EVENTS)";
    assert!(text.contains(why), "{text}");
    assert!(text.contains("Verdict: nothing can be measured here: see the error above"), "{text}");
}

#[test]
fn each_missing_capability_is_named_with_its_cost() {
    let text = flowing(&fixture::holding(fixture::debian_6_12(), &["CAP_BPF"]));
    assert!(text.contains("CAP_BPF held: loads programs and maps"), "{text}");
    assert!(text.contains("CAP_PERFMON MISSING: no tracing program can be loaded or attached"), "{text}");
    let text = flowing(&fixture::holding(fixture::debian_6_12(), &["CAP_SYS_ADMIN"]));
    assert!(text.contains("CAP_BPF by CAP_SYS_ADMIN"), "{text}");
}

#[test]
fn what_was_refused_for_want_of_privileges_is_unknown_and_not_a_yes() {
    let refused = nothing_to_hook().fentry;
    let facts = Facts { fentry: refused, ..fixture::holding(fixture::debian_6_12(), &[]) };
    assert!(flowing(&facts).contains("fentry and fexit unknown: nothing speaks against it"), "{}", shown(&facts));
    assert!(flowing(&fixture::debian_6_12()).contains("fentry and fexit yes: tried"));
}

#[test]
fn the_json_has_the_plan_and_tells_unknown_from_zero() {
    let facts = fixture::debian_5_10();
    let value = json(&facts, &plan(&facts, &Wish::default())).unwrap();
    assert_eq!((&value["schema"], &value["verdict"], &value["exit_code"]), (&1.into(), &"degraded".into(), &3.into()));
    assert_eq!(value["plan"]["frames"], "hash");
    let roles = value["plan"]["roles"].as_array().expect("roles");
    let role = |name: &str| roles.iter().find(|role| role["role"] == name).expect("the role");
    assert_eq!(role("pin")["hooks"][0]["program"], "pin_enter_fentry");
    assert_eq!(role("clone")["outcome"], "not_applicable");
    assert_eq!(role("unregister")["outcome"], "lost");
    assert_eq!(role("look-up")["passed_over"].as_array().map(Vec::len), Some(3));

    let mut facts = facts;
    facts.privileges.lockdown = Err(Unknown("securityfs is not mounted".to_owned()));
    let value = json(&facts, &plan(&facts, &Wish::default())).unwrap();
    assert_eq!(value["kernel"]["lockdown"]["unknown"], "securityfs is not mounted");
    assert!(value["kernel"]["lockdown"]["value"].is_null());
}
