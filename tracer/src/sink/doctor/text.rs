//! The doctor's findings for a terminal of 80 columns.

use super::{CAPABILITIES, Standing, standing, verdict};
use crate::{
    human::hanging,
    kernel::{Facts, Known, Traceable, Trial, Unknown},
    probe::{
        mode::Mechanism,
        plan::{Choice, Outcome, Plan},
    },
};

/// Columns of a line at most.
const WIDTH: usize = 80;
/// Columns of the first column of a table, its indent included.
const LABEL: usize = 22;

/// The whole of it; ends with a newline.
pub fn text(facts: &Facts, plan: &Plan) -> String {
    let mut page = Page::default();
    kernel(&mut page, facts, plan);
    privileges(&mut page, facts, plan);
    hooks(&mut page, plan);
    if !plan.figures.is_whole() {
        page.title("Not to be had here, or not wholly");
        for lack in plan.figures.shown() {
            page.item(&lack);
        }
    }
    if !plan.errors.is_empty() {
        page.title("In the way");
        for error in &plan.errors {
            page.item(&format!("{}: {error}", if error.is_fatal() { "error" } else { "warning" }));
        }
    }
    page.title(&format!("Verdict: {}", verdict(plan)));
    page.0
}

fn kernel(page: &mut Page, facts: &Facts, plan: &Plan) {
    page.title("Kernel");
    page.row("release", &format!("{} ({})", facts.release.text, facts.machine));
    page.row("BTF", &state(facts.types.as_ref().map(|_| "read".to_owned())));
    let symbols = facts.symbols.as_ref().map(|symbols| {
        let hidden = if symbols.addresses_hidden { "; addresses are hidden, and not needed" } else { "" };
        format!("read{hidden}")
    });
    page.row("kallsyms", &state(symbols));
    page.row(
        "traceable list",
        &match &facts.traceable {
            Traceable::List(_) => "read".to_owned(),
            Traceable::NoFtrace => "none: the kernel is built without function tracing".to_owned(),
            Traceable::Unknown(reason) => format!("unknown: {reason}"),
        },
    );
    page.row(
        "fentry and fexit",
        &match (&plan.obstacles.fentry, &facts.fentry) {
            (Some(why), _) => format!("no: {why}"),
            (None, Trial::Works) => "yes: tried".to_owned(),
            (None, _) => "unknown: nothing speaks against it, but it could not be tried".to_owned(),
        },
    );
    page.row(
        "kprobe.multi",
        &match (&plan.obstacles.multi, &facts.multi) {
            (Some(why), _) => format!("no: {why}"),
            (None, Trial::Works) => "yes".to_owned(),
            (None, _) => "unknown: nothing speaks against it, but it could not be tried".to_owned(),
        },
    );
    let preemption = &facts.preemption;
    let effect = if preemption.possible { "yes, which skips programs of fentry and fexit" } else { "no" };
    page.row("preempts itself", &format!("{effect}: {}", preemption.why));
    let no_kprobes = plan.obstacles.kprobe.as_ref();
    page.row("kprobes", &no_kprobes.map_or_else(|| "yes".to_owned(), |why| format!("no: {why}")));
    page.row("lockdown", &state(facts.privileges.lockdown.as_ref().map(|lockdown| lockdown.name().to_owned())));
}

fn state(known: Result<String, &Unknown>) -> String {
    known.unwrap_or_else(|unknown| format!("unknown: {unknown}"))
}

fn privileges(page: &mut Page, facts: &Facts, plan: &Plan) {
    page.title("Privileges");
    page.row("effective user", &facts.privileges.euid.to_string());
    for (capability, purpose) in CAPABILITIES {
        page.row(
            capability,
            &match standing(facts, plan, capability) {
                Standing::Held => format!("held: {purpose}"),
                Standing::Included => format!("by CAP_SYS_ADMIN: {purpose}"),
                Standing::NotNeeded => format!("not held, not needed: {purpose}"),
                Standing::Missing(cost) => format!("MISSING: {cost}"),
                Standing::Unknown(reason) => format!("unknown: {reason}"),
            },
        );
    }
    let number = |known: &Known<i32>| state(known.as_ref().map(ToString::to_string));
    page.row("perf_event_paranoid", &number(&facts.privileges.perf_event_paranoid));
    page.row(
        "unprivileged bpf",
        &match &facts.privileges.unprivileged_bpf_disabled {
            Ok(0) => "allowed (kernel.unprivileged_bpf_disabled = 0)".to_owned(),
            Ok(level) => format!("disabled (kernel.unprivileged_bpf_disabled = {level})"),
            Err(unknown) => format!("unknown: {unknown}"),
        },
    );
    page.row("kptr_restrict", &number(&facts.privileges.kptr_restrict));
    let memlock = facts.privileges.memlock.map_or_else(|| "unlimited".to_owned(), |b| format!("{} KiB", b / 1024));
    page.row("memlock limit", &memlock);
}

fn hooks(page: &mut Page, plan: &Plan) {
    if plan.choices.is_empty() {
        return;
    }
    page.title(match plan.mechanism {
        Some(Mechanism::Fentry) => "Plan: fentry and fexit",
        Some(Mechanism::Multi) => "Plan: kprobe.multi",
        Some(Mechanism::Kprobe) => "Plan: kprobes and kretprobes",
        None => "Plan: what would be hooked if anything could",
    });
    for choice in &plan.choices {
        page.row(choice.role.name(), &chosen(plan, choice));
        if matches!(choice.chosen, Outcome::Hooked(_)) {
            page.continued(&format!("gives {}", choice.role.gives()));
        }
        for (function, reason) in &choice.passed_over {
            page.continued(&format!("passed over {function}: {reason}"));
        }
    }
}

fn chosen(plan: &Plan, choice: &Choice) -> String {
    let kinds: Vec<_> =
        plan.hooks.iter().filter(|hook| hook.role == choice.role).map(|hook| hook.kind.name()).collect();
    match &choice.chosen {
        Outcome::Hooked(function) if kinds.is_empty() => format!("{function}: {}", choice.why),
        Outcome::Hooked(function) => format!("{function} ({}): {}", kinds.join(", "), choice.why),
        Outcome::NotWanted => "not asked for".to_owned(),
        Outcome::NotApplicable => format!("does not apply: {}", choice.why),
        Outcome::Lost => format!("NONE: {}", choice.why),
    }
}

/// Lines of at most [`WIDTH`] columns.
#[derive(Default)]
struct Page(String);

impl Page {
    fn title(&mut self, title: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.wrapped("", 2, title);
    }

    fn row(&mut self, label: &str, value: &str) {
        self.wrapped(&format!("{:LABEL$}", format!("  {label}")), LABEL + 2, value);
    }

    /// A further line of the row before.
    fn continued(&mut self, value: &str) {
        self.wrapped(&" ".repeat(LABEL), LABEL + 2, value);
    }

    fn item(&mut self, value: &str) {
        self.wrapped("  - ", 4, value);
    }

    fn wrapped(&mut self, first: &str, hang: usize, value: &str) {
        for line in hanging(first, hang, value, WIDTH) {
            self.push(&line);
        }
    }

    fn push(&mut self, line: &str) {
        self.0.push_str(line.trim_end());
        self.0.push('\n');
    }
}
