//! Resource limits that are too low for any work: the error is one line, without a panic or an abort.
#![expect(clippy::unwrap_used, reason = "a panic is the test's failure")]

use std::process::{Command, Output};

/// Runs pinscope in a shell after these commands.
fn after(words: &str, arguments: &str) -> Output {
    let program = env!("CARGO_BIN_EXE_pinscope");
    Command::new("/bin/sh").args(["-c", &format!("{words}\nexec {program} {arguments}")]).output().unwrap()
}

#[test]
fn a_limit_that_is_too_low_is_one_line() {
    for (limit, arguments, wanted) in [
        ("ulimit -n 6", "report -d 1s", "the limit of open files is 6 (ulimit -n)"),
        ("ulimit -n 6", "trace -d 1s", "the limit of open files is 6 (ulimit -n)"),
        ("ulimit -n 6", "doctor", "the limit of open files is 6 (ulimit -n)"),
        ("ulimit -v 30000", "report -d 1s", "the limit of address space is 30000 KiB (ulimit -v)"),
        ("ulimit -v 30000", "doctor", "the limit of address space is 30000 KiB (ulimit -v)"),
    ] {
        let output = after(limit, arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{limit}, {arguments}: {said}");
        assert!(said.lines().count() == 1 && said.contains(wanted), "{limit}, {arguments}: {said}");
    }
}

#[test]
fn a_disk_that_is_full_is_one_line() {
    for arguments in ["completions bash", "doctor", "metrics"] {
        let output = after("exec >/dev/full", arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments}: {said}");
        assert!(said.lines().count() == 1 && said.contains("No space left"), "{arguments}: {said}");
    }
}
