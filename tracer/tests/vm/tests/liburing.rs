//! Third-party programs: some of liburing's own tests, compared with the kernel's tracepoint `io_uring_register`.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context as _, ensure};

use super::without_tracer;
use crate::{
    call_counts::CallCounts,
    context::Context,
    kernel::Version,
    ledger::Ledger,
    pinscope::{self, Finished, Running},
    protocol::{Test, TestResult, Verdict},
    report::Report,
};

/// Folder into which `cargo xtask test` puts them.
const FOLDER: &str = "/usr/lib/liburing";
/// Working directory, in which they create files.
const PLACE: &str = "/mnt/ext4";
const TIME: Duration = Duration::from_mins(1);

/// A program; the operations that it must show; and the number of its successful calls that only create or clear empty
/// slots, according to its source.
type Program = (&'static str, &'static [&'static str], fn(Version) -> u64);

const PROGRAMS: [Program; 5] = [
    ("fixed-hugepage", &["register"], |_| 0),
    ("io_uring_register", &["register", "unregister"], |_| 0),
    ("regbuf-clone", &["register"], emptied_by_clones),
    ("register-restrictions", &["register"], |_| 0),
    // One update from a buffer to an empty slot, and one from empty to empty.
    ("rsrc_tags", &["register", "update"], |_| 2),
];

/// A table of eight empty slots to be filled, one to be cloned, and, where parts of tables can be cloned, a sparse
/// table for them.
fn emptied_by_clones(kernel: Version) -> u64 {
    match kernel {
        kernel if kernel < Version(6, 12) => 1,
        kernel if kernel < Version(6, 13) => 2,
        _ => 3,
    }
}

pub fn tests() -> Vec<Test> {
    let test = |program: Program| {
        let title = format!("liburing_{}", program.0.replace('-', "_"));
        Test::new(title, move |context| under_report(context, program)).within(TIME * 3)
    };
    PROGRAMS.map(test).into()
}

fn run(command: &mut Command) -> anyhow::Result<Finished> {
    Running::start(pinscope::piped(command.current_dir(PLACE)))?.finish(TIME)
}

fn under_report(context: &Context, (name, operations, empties): Program) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let program = format!("{FOLDER}/{name}.t");
    ensure!(Path::new(&program).exists(), "no {program}: `cargo xtask test` builds it from Debian's source package");
    let alone = run(&mut Command::new(&program))?;
    let ledger = Ledger::start().context("the kernel's own tracepoint, through tracefs")?;
    let mut report = pinscope::command(&["report", "--json", "--attach", &context.attach, "--", &program]);
    let finished = run(&mut report)?.expect_code(alone.code())?;
    let mut truth = ledger.end()?;
    println!("    exit code {}, {} calls on buffers, {} refused", alone.code(), truth.all(), truth.failed());
    for operation in operations {
        ensure!(truth.total(operation) > 0, "{name} makes no {operation}:\n{truth}\n{}", alone.words());
    }
    let report = Report::of(&finished)?;
    let partial = report.call_counts()?.count("update", "partial");
    if partial > 0 {
        truth.partial(partial)?;
    }
    report.balanced(&truth)?;
    installations(&report, &truth, empties(context.kernel.version))?;
    Ok(Verdict::Passed)
}

/// Q1's installations equal the successful calls of the kernel's tracepoint, except those that installed nothing, on
/// rings that pinscope can distinguish.
fn installations(report: &Report, truth: &CallCounts, empties: u64) -> anyhow::Result<()> {
    let succeeded: u64 = ["register", "update", "clone"].map(|operation| truth.count(operation, "ok")).iter().sum();
    let installed = succeeded + truth.count("update", "partial") - empties;
    let told = &report.json()["installations"];
    let parts = ["before_requests", "after_requests"].map(|key| told[key].as_u64());
    ensure!(parts.into_iter().sum::<Option<u64>>() == Some(installed), "{installed} installations: {told}");
    let rings = report.json()["rings"]["list"].as_array().context("no rings")?;
    let of_rings = |key: &str| rings.iter().map(|ring| ring[key].as_u64()).sum::<Option<u64>>();
    let parts = ["registers", "updates", "clones"].map(of_rings);
    ensure!(parts.into_iter().sum::<Option<u64>>() == Some(installed), "{installed} installations: {rings:?}");
    let state = report.answer("Q1")?["state"].as_str();
    ensure!((state == Some("unanswerable")) == (installed == 0), "{installed} installations: {state:?}");
    Ok(())
}
