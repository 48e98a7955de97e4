//! Builds the guest's script: all cases alone, then under each observer in turn. Pure.

use std::fmt::Write as _;

use super::figures::{Attach, Case, Mode};

/// Shell functions for the guest. [`super::figures`] reads the lines that begin with `bench-`, and the guest program's
/// JSON lines.
const FUNCTIONS: &str = include_str!("functions.sh");

/// The whole script: for each mode, a marker and the cases.
pub fn script(modes: &[Mode], cases: &[Case]) -> String {
    let mut script = FUNCTIONS.to_owned();
    script.push_str("\ncases() {\n");
    for case in cases {
        let (warmup, n) = case.repeats();
        // Writing to a string cannot fail.
        let _ = writeln!(script, "    case_of {} {warmup} {n}", case.name());
    }
    script.push_str("}\n\n");
    for mode in modes {
        let _ = writeln!(script, "echo 'bench-mode {mode}'\n{}", call(*mode));
    }
    script
}

fn call(mode: Mode) -> String {
    let attach = |attach: Attach| attach.name();
    match mode {
        Mode::Alone => "cases".to_owned(),
        Mode::Daemon(by) => format!("under_daemon {}", attach(by)),
        Mode::Trace(by) => format!("under_trace {}", attach(by)),
        Mode::Bpftrace(by) => format!("under_bpftrace {}", attach(by)),
    }
}

/// Paths in the guest of the bpftrace scripts, and the scripts.
pub const BPFTRACE_FILES: [(&str, &str); 2] =
    [("/root/kprobe.bt", include_str!("kprobe.bt")), ("/root/fentry.bt", include_str!("fentry.bt"))];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mode_runs_every_case() {
        let script = script(&[Mode::Alone, Mode::Daemon(Attach::Kprobe)], &[Case::Pages1, Case::Fault]);
        let body = script.strip_prefix(FUNCTIONS).unwrap();
        assert_eq!(
            body,
            "\ncases() {\n    case_of pages1 4000 4000\n    case_of fault 4000 4000\n}\n\n\
             echo 'bench-mode alone'\ncases\necho 'bench-mode daemon kprobe'\nunder_daemon kprobe\n"
        );
    }
}
