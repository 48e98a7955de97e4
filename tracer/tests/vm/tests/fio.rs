//! A real program: fio with registered buffers in five kinds of memory.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context as _, ensure};

use super::{policies, without_tracer};
use crate::{
    context::Context,
    kernel::Kernel,
    maps::Backing,
    pinscope::{self, Finished, Running},
    protocol::{Test, TestResult, Verdict},
    record::Record,
    report::Report,
    trace::Trace,
};

const PROGRAM: &str = "/usr/bin/fio";
/// Number of buffers that fio registers.
const DEPTH: u64 = 8;
const TIME: Duration = Duration::from_mins(2);

/// A kind of memory, its backing, and whether kernels up to 6.4 refuse it.
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
    let mut tests = vec![
        Test::new("fio_kinds_of_memory", kinds).within(TIME * 3),
        Test::new("fio_several_jobs", several_jobs).within(TIME * 3),
        Test::new("session_fio_exit_code", exit_code).within(TIME * 3),
    ];
    let summaries = MEMORY.iter().map(|memory| {
        Test::new(format!("session_fio_{}", memory.name), move |context| summary(context, memory)).within(TIME * 3)
    });
    tests.extend(summaries);
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

fn is_refused(context: &Context, memory: &Memory) -> bool {
    memory.refused_before_6_5 && context.kernel.refuses_files()
}

/// The records of several fio runs in one session.
fn kinds(context: &Context) -> TestResult {
    if let Some(verdict) = is_missing(context) {
        return Ok(verdict);
    }
    // Creates the file that is read.
    run(&job("malloc", &[]))?;
    let trace = Trace::start(context, &["--comm", "fio"])?;
    for memory in &MEMORY {
        let finished = run(&job(memory.option, &[]))?;
        let refused = is_refused(context, memory);
        ensure!((finished.code() != 0) == refused, "{}: fio ends with {}", memory.name, finished.words());
    }
    let ended = trace.interrupt()?;
    ended.finished.expect_code(0)?;
    let registers: Vec<_> = ended.records.iter().filter(|record| record.operation == "register").collect();
    ensure!(registers.len() == MEMORY.len(), "{} registrations: {:?}", registers.len(), ended.records);
    for (memory, record) in MEMORY.iter().zip(registers) {
        record_of(context, memory, record).with_context(|| format!("{}: {record:?}", memory.name))?;
    }
    Ok(Verdict::Passed)
}

fn record_of(context: &Context, memory: &Memory, record: &Record) -> anyhow::Result<()> {
    let refused = is_refused(context, memory);
    ensure!(record.comm == "fio" && record.requested == Some(DEPTH), "process or buffers requested");
    ensure!(record.result == if refused { "EOPNOTSUPP" } else { "ok" }, "result");
    ensure!(refused || record.buffers == Some(DEPTH), "buffers");
    if !context.kernel.can_be_walked() {
        ensure!(record.backings.is_empty(), "backings without a walk");
        return Ok(());
    }
    let right = |backing: &Backing| backing.class == memory.class && backing.shared == memory.shared;
    ensure!(!record.backings.is_empty() && record.backings.iter().all(|told| right(&told.pair().0)), "backings");
    Ok(())
}

/// A report around fio.
fn summary(context: &Context, memory: &Memory) -> TestResult {
    if let Some(verdict) = is_missing(context) {
        return Ok(verdict);
    }
    let job = job(memory.option, &[]);
    // The file exists now, so each run does the same; a run without pinscope shows fio's normal exit status.
    run(&job)?;
    let alone = run(&job)?.code();
    let refused = is_refused(context, memory);
    ensure!((alone != 0) == refused, "fio alone exits with {alone}");
    let finished = under(context, "report", &job)?.finish(TIME)?.expect_code(alone)?;
    let report = Report::of(&finished)?;
    figures(&report, &context.kernel, memory, refused)?;
    answers(&report, &context.kernel, memory, refused)?;
    Ok(Verdict::Passed)
}

/// fio registers once, before its first request. Each kernel's rule judges the backing of its buffers differently.
fn answers(report: &Report, kernel: &Kernel, memory: &Memory, refused: bool) -> anyhow::Result<()> {
    let q1 = report.answer("Q1")?;
    let verdict = q1["verdict"].as_str();
    let right =
        if refused { verdict.is_none() } else { verdict.is_some_and(|told| told.starts_with("Set-up: 1 of 1")) };
    ensure!(right, "{} of a fio that is {}", q1, if refused { "refused" } else { "accepted" });
    if !kernel.can_be_walked() {
        return Ok(());
    }
    let buffers = if refused { 1 } else { DEPTH };
    let mut seen = policies::seen(&report.json()["judgements"])?;
    seen.retain(|_, count| *count > 0);
    let answers = if memory.refused_before_6_5 { policies::PRIVATE_FILE } else { policies::ALL_TAKE };
    let own = if kernel.refuses_files() { answers[1] } else { answers[3] };
    let truth = policies::Counts::from([((answers.map(str::to_owned).to_vec(), own.to_owned()), buffers)]);
    ensure!(seen == truth, "judged: {seen:?}, expected {truth:?}");
    Ok(())
}

fn figures(report: &Report, kernel: &Kernel, memory: &Memory, refused: bool) -> anyhow::Result<()> {
    let counts = report.call_counts()?;
    let result = if refused { "EOPNOTSUPP" } else { "ok" };
    ensure!(counts.count("register", result) == 1 && counts.total("register") == 1, "registrations:\n{counts}");
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

/// Jobs are separate processes; pinscope follows all of them.
fn several_jobs(context: &Context) -> TestResult {
    if let Some(verdict) = is_missing(context) {
        return Ok(verdict);
    }
    let job = job("malloc", &["--numjobs=3"]);
    run(&job)?;
    let finished = under(context, "report", &job)?.finish(TIME)?.expect_code(0)?;
    let report = Report::of(&finished)?;
    let counts = report.call_counts()?;
    ensure!(counts.count("register", "ok") == 3, "registrations:\n{counts}");
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
