//! A real program: fio with registered buffers in five kinds of memory.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context as _, ensure};

use super::without_tracer;
use crate::{
    context::Context,
    kernel::Kernel,
    pinscope::{self, Finished, Running},
    protocol::{Test, TestResult, Verdict},
    report::Report,
    trace::Trace,
};

const PROGRAM: &str = "/usr/bin/fio";
/// Buffers that fio registers.
const DEPTH: u64 = 8;
const TIME: Duration = Duration::from_mins(2);

/// A kind of memory, what stands behind it, and whether kernels up to 6.4 refuse it.
struct Memory {
    name: &'static str,
    option: &'static str,
    class: &'static str,
    shared: bool,
    refused_before_6_5: bool,
}

const MEMORY: [Memory; 5] = [
    Memory { name: "malloc", option: "malloc", class: "anon", shared: false, refused_before_6_5: false },
    Memory { name: "mmap", option: "mmap", class: "anon", shared: false, refused_before_6_5: false },
    Memory {
        name: "mmapfile",
        option: "mmap:/mnt/ext4/fio-memory",
        class: "file",
        shared: false,
        refused_before_6_5: true,
    },
    Memory { name: "shm", option: "shm", class: "shmem", shared: true, refused_before_6_5: true },
    Memory {
        name: "mmaphuge",
        option: "mmaphuge:/mnt/huge/fio",
        class: "hugetlb",
        shared: true,
        refused_before_6_5: false,
    },
];

pub fn tests() -> Vec<Test> {
    let mut tests: Vec<Test> = MEMORY
        .iter()
        .map(|memory| Test::new(format!("fio_{}", memory.name), move |context| kind(context, memory)).within(TIME * 3))
        .collect();
    tests.push(Test::new("fio_several_jobs", several_jobs).within(TIME * 3));
    tests.push(Test::new("fio_exit_code", exit_code).within(TIME * 3));
    tests
}

/// A short job: 8 buffers, reads of 4 KiB from a file on ext4.
fn job(memory: &str, more: &[&str]) -> Vec<String> {
    let depth = format!("--iodepth={DEPTH}");
    let memory = format!("--mem={memory}");
    let words = [
        PROGRAM,
        "--name=job",
        "--ioengine=io_uring",
        "--fixedbufs=1",
        &depth,
        "--rw=randread",
        "--bs=4k",
        "--size=512k",
        "--filename=/mnt/ext4/fio-data",
        "--output=/dev/null",
        &memory,
    ];
    words.iter().chain(more).map(|word| (*word).to_owned()).collect()
}

fn run(job: &[String]) -> anyhow::Result<Finished> {
    Running::start(pinscope::piped(Command::new(&job[0]).args(&job[1..])))?.finish(TIME)
}

fn under(context: &Context, subcommand: &str, job: &[String]) -> anyhow::Result<Running> {
    let mut command = pinscope::command(&[subcommand, "--json", "--attach", &context.attach, "--"]);
    Running::start(command.args(job))
}

fn is_missing(context: &Context) -> Option<Verdict> {
    let without = (!Path::new(PROGRAM).exists()).then(|| Verdict::Ignored(format!("no {PROGRAM} in this guest")));
    without_tracer(context).or(without)
}

fn kind(context: &Context, memory: &Memory) -> TestResult {
    if let Some(verdict) = is_missing(context) {
        return Ok(verdict);
    }
    let job = job(memory.option, &[]);
    // fio alone says how fio ends; once the file is there, each run does the same.
    run(&job)?;
    let alone = run(&job)?.code();
    let refused = memory.refused_before_6_5 && context.kernel.refuses_files();
    ensure!((alone != 0) == refused, "fio by itself ends with {alone}");
    // Each run of pinscope takes seconds where the processor is emulated: the summary in one mode, the records in the
    // other.
    if context.attach == "kprobe" {
        let finished = under(context, "report", &job)?.finish(TIME)?.expect_code(alone)?;
        summary(&Report::of(&finished)?, &context.kernel, memory, refused)?;
    } else {
        records(context, &job, alone, memory, refused)?;
    }
    Ok(Verdict::Passed)
}

fn summary(report: &Report, kernel: &Kernel, memory: &Memory, refused: bool) -> anyhow::Result<()> {
    let tally = report.tally()?;
    let result = if refused { "EOPNOTSUPP" } else { "ok" };
    ensure!(tally.count("register", result) == 1 && tally.total("register") == 1, "registrations:\n{tally}");
    if !kernel.can_be_walked() {
        ensure!(report.json()["backings"].is_null(), "backings without a walk: {}", report.json()["backings"]);
        return Ok(());
    }
    let buffers = report.buffers_by_class(!refused)?;
    let expected = if refused { 1 } else { DEPTH };
    let found = buffers.get(memory.class).copied();
    ensure!(found == Some(expected), "{} on {}: buffers by class {buffers:?}", memory.name, kernel.release);
    ensure!(buffers.len() == 1, "more than one class: {buffers:?}");
    Ok(())
}

fn records(context: &Context, job: &[String], code: i32, memory: &Memory, refused: bool) -> anyhow::Result<()> {
    let mut command = pinscope::command(&["trace", "--json", "--attach", &context.attach, "--"]);
    let ended = Trace::start_command(command.args(job))?.ended(TIME)?;
    let (registers, records) = (ended.records.iter().filter(|record| record.operation == "register"), &ended.records);
    let registers: Vec<_> = registers.collect();
    ended.finished.expect_code(code)?;
    let [record] = registers.as_slice() else { anyhow::bail!("{} registrations: {records:?}", registers.len()) };
    ensure!(record.requested == Some(DEPTH), "{:?} buffers requested", record.requested);
    ensure!(record.comm == "fio", "comm {}", record.comm);
    ensure!(refused || record.buffers == Some(DEPTH), "{:?} buffers", record.buffers);
    let backings: Vec<_> = record.backings.iter().map(|backing| backing.pair().0).collect();
    if !context.kernel.can_be_walked() {
        ensure!(backings.is_empty(), "backings without a walk: {backings:?}");
        return Ok(());
    }
    let right = |backing: &crate::maps::Backing| backing.class == memory.class && backing.shared == memory.shared;
    ensure!(!backings.is_empty() && backings.iter().all(right), "backings {backings:?}");
    Ok(())
}

/// Jobs are processes of their own: pinscope follows them all.
fn several_jobs(context: &Context) -> TestResult {
    if let Some(verdict) = is_missing(context) {
        return Ok(verdict);
    }
    let job = job("malloc", &["--numjobs=3"]);
    run(&job)?;
    let finished = under(context, "report", &job)?.finish(TIME)?.expect_code(0)?;
    let report = Report::of(&finished)?;
    let tally = report.tally()?;
    ensure!(tally.count("register", "ok") == 3, "registrations:\n{tally}");
    let processes = report.json()["processes"].as_array().context("no processes")?;
    ensure!(processes.len() == 3, "processes: {processes:?}");
    Ok(Verdict::Passed)
}

fn exit_code(context: &Context) -> TestResult {
    if let Some(verdict) = is_missing(context) {
        return Ok(verdict);
    }
    let job = job("malloc", &["--no-such-option=1"]);
    let alone = run(&job)?.code();
    ensure!(alone != 0, "fio takes any option");
    under(context, "report", &job)?.finish(TIME)?.expect_code(alone)?;
    Ok(Verdict::Passed)
}
