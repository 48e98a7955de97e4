//! Every mapping of the matrix under every policy. The policies' answers are known from kernels that have them; this
//! kernel's answers come from the workload itself.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::{
    matrix::{GIB, wide},
    unserved, without_tracer,
};
use crate::{
    context::Context,
    errno::result_name,
    kernel::Version,
    maps, pinscope,
    protocol::{Test, TestResult, Verdict},
    report::Report,
    ring::{Buffer, Request, Ring, entries},
    space::{Kind, Space},
    sys::{HUGE_PAGE, PAGE},
};

/// Answers of the policies: before 6.5, single source, as proposed, since 6.5, since 7.2.
pub type Answers = [&'static str; 5];

const OK: &str = "ok";
pub const ALL_TAKE: Answers = [OK; 5];
const NONE_TAKE: Answers = ["EFAULT"; 5];
const SHARED_FILE: Answers = ["EOPNOTSUPP", "EOPNOTSUPP", "EFAULT", "EFAULT", "EFAULT"];
pub const PRIVATE_FILE: Answers = ["EOPNOTSUPP", "EOPNOTSUPP", "EFAULT", OK, OK];

/// Adjacent mappings in one buffer, one page or huge page each; `None` is a hole.
struct Case {
    kinds: &'static [Option<Kind>],
    answers: Answers,
}

const fn case(kinds: &'static [Option<Kind>], answers: Answers) -> Case {
    Case { kinds, answers }
}

/// More than 1 GiB of one file, mapped repeatedly, with one VMA each time.
const LARGE: Answers = ["EFAULT", "EFAULT", "EFAULT", "EFAULT", OK];

/// Since 6.10, GUP's answer depends on the mapping's content.
const UNDECIDED: &str = "undecided";

const CASES: [Case; 34] = [
    case(&[Some(Kind::Anon)], ALL_TAKE),
    case(&[Some(Kind::SharedAnon)], ALL_TAKE),
    case(&[Some(Kind::Memfd)], ALL_TAKE),
    case(&[Some(Kind::MemfdPrivate)], ALL_TAKE),
    case(&[Some(Kind::Tmpfs)], ALL_TAKE),
    case(&[Some(Kind::TmpfsPrivate)], ALL_TAKE),
    // tmpfs with its own operations, which neither the old rule nor the proposed one recognises.
    case(&[Some(Kind::SysV)], PRIVATE_FILE),
    case(&[Some(Kind::Hugetlb)], ALL_TAKE),
    case(&[Some(Kind::HugetlbShared)], ALL_TAKE),
    case(&[Some(Kind::HugetlbFile)], ALL_TAKE),
    case(&[Some(Kind::Ext4)], SHARED_FILE),
    case(&[Some(Kind::Ext4Private)], PRIVATE_FILE),
    case(&[Some(Kind::Ramfs)], SHARED_FILE),
    case(&[Some(Kind::RamfsPrivate)], PRIVATE_FILE),
    // Anonymous memory to GUP, a file to io_uring.
    case(&[Some(Kind::ZeroPrivate)], ["EOPNOTSUPP", "EOPNOTSUPP", OK, OK, OK]),
    case(&[Some(Kind::Zero)], ALL_TAKE),
    case(&[Some(Kind::ReadOnly)], NONE_TAKE),
    case(&[Some(Kind::NoAccess)], NONE_TAKE),
    // Only if the kernel supports it.
    case(&[Some(Kind::Secret)], NONE_TAKE),
    // Its pages are written back, so the rule for files applies. A guest without a disk has none.
    case(&[Some(Kind::Block)], SHARED_FILE),
    case(&[Some(Kind::BlockPrivate)], PRIVATE_FILE),
    // Only if the guest has such a filesystem on /mnt/dax.
    case(&[Some(Kind::Dax)], ["EOPNOTSUPP"; 5]),
    case(&[Some(Kind::DaxPrivate)], ["EOPNOTSUPP", "EOPNOTSUPP", "EOPNOTSUPP", UNDECIDED, UNDECIDED]),
    case(&[Some(Kind::Anon), Some(Kind::Dax)], NONE_TAKE),
    // These hold for every rule: GUP stops at the first mapping that it refuses, and the old rules check all pages
    // after it.
    case(&[Some(Kind::Ext4Private), Some(Kind::ReadOnly)], NONE_TAKE),
    case(&[Some(Kind::Anon), Some(Kind::ReadOnly)], NONE_TAKE),
    case(&[Some(Kind::Anon), Some(Kind::Memfd)], [OK, "EINVAL", OK, OK, OK]),
    case(&[Some(Kind::Memfd), Some(Kind::Anon)], [OK, "EINVAL", OK, OK, OK]),
    case(&[Some(Kind::Memfd), Some(Kind::Memfd)], [OK, "EINVAL", OK, OK, OK]),
    case(&[Some(Kind::Memfd), Some(Kind::Ext4)], ["EOPNOTSUPP", "EINVAL", "EFAULT", "EFAULT", "EFAULT"]),
    case(&[Some(Kind::Ext4), Some(Kind::Memfd)], SHARED_FILE),
    case(&[Some(Kind::Anon), Some(Kind::Ext4Private)], ["EOPNOTSUPP", "EINVAL", "EFAULT", OK, OK]),
    case(&[Some(Kind::Anon), None, Some(Kind::Memfd)], NONE_TAKE),
    case(&[None, Some(Kind::Anon)], NONE_TAKE),
];

pub fn tests() -> Vec<Test> {
    vec![Test::new("policies_of_the_matrix", of_the_matrix).within(Duration::from_mins(2))]
}

/// Number of buffers by the policies' answers and the kernel's own.
pub type Counts = BTreeMap<(Vec<String>, String), u64>;

/// Names of the policies, in the order of [`Answers`].
pub const NAMES: [&str; 5] = ["before_6_5", "single_source", "as_proposed", "since_6_5", "since_7_2"];

/// Registers every case and prints a line for each: its number and the kernel's answer.
pub fn probe() -> ExitCode {
    match register_all() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn register_all() -> anyhow::Result<()> {
    let ring = Ring::new()?;
    for (number, case) in CASES.iter().enumerate() {
        let mut space = Space::new(64 << 20);
        match build(&mut space, case) {
            Ok(buffer) => report(number, &ring, buffer),
            // The error of mmap(2), or of creating what it maps.
            Err(error) if is_optional(case) => println!("case {number} {ABSENT} {error:#}"),
            Err(error) => return Err(error),
        }
    }
    // A mapping that no program creates for its data.
    report(CASES.len(), &ring, entries(&maps::read()?)?);
    let mut space = Space::new(GIB + HUGE_PAGE);
    report(CASES.len() + 1, &ring, Buffer { address: wide(&mut space)?, length: GIB + PAGE });
    unserved::register_all(&ring);
    // Refused for their size, independent of the mapping.
    for length in [(1 << 40) + PAGE, 0] {
        let refused = ring.call(Request::Register(&[Buffer { address: PAGE, length }]));
        ensure!(refused.ret < 0, "{length} bytes at address {PAGE} were taken");
    }
    Ok(())
}

/// Not every kernel has secretmem, and not every guest has a disk or persistent memory.
const ABSENT: &str = "absent:";

fn is_optional(case: &Case) -> bool {
    case.kinds.iter().any(|kind| {
        matches!(kind, Some(Kind::Secret | Kind::Block | Kind::BlockPrivate | Kind::Dax | Kind::DaxPrivate))
    })
}

fn build(space: &mut Space, case: &Case) -> anyhow::Result<Buffer> {
    let start = space.end();
    for kind in case.kinds {
        match kind {
            Some(kind) => space.map(*kind, kind.granule())?,
            None => space.hole(PAGE)?,
        };
    }
    Ok(Buffer { address: start, length: space.end() - start })
}

fn report(number: usize, ring: &Ring, buffer: Buffer) {
    let answer = ring.call(Request::Register(&[buffer]));
    println!("case {number} {}", result_name(answer.ret));
    if answer.ret >= 0 {
        ring.call(Request::Unregister);
    }
}

fn of_the_matrix(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let binary = std::env::current_exe()?;
    let binary = binary.to_str().context("the path of this program")?;
    let arguments = ["report", "--json", "--attach", &context.attach, "--", binary, "probe", "policies"];
    let finished = pinscope::run(&arguments, Duration::from_mins(1))?.expect_code(0)?;
    let report = Report::of(&finished)?;
    let judgements = &report.json()["judgements"];
    if !context.kernel.can_be_walked() {
        ensure!(judgements.is_null(), "judged without a walk: {judgements}");
        return Ok(Verdict::Passed);
    }
    let truth = truth(context, &finished.stdout)?;
    let seen = seen(judgements)?;
    let off: Vec<_> = truth.iter().chain(&seen).filter(|(key, _)| truth.get(key) != seen.get(key)).collect();
    ensure!(off.is_empty(), "first what should be, then what was judged: {off:?}");
    agrees(context, judgements)?;
    judge_no_rule(report.json(), unserved::count(&finished.stdout)?)?;
    Ok(Verdict::Passed)
}

/// Memory that the kernel could not fault in is counted as such, not as an answer against the rule.
fn judge_no_rule(report: &Value, unserved: u64) -> anyhow::Result<()> {
    let answers = report["answers"].as_array().context("no answers")?;
    let answer = answers.iter().find(|answer| answer["id"] == "Q4").context("no Q4")?;
    let tables = answer["evidence"]["tables"].as_array().context("no tables")?;
    let rows = tables.iter().filter_map(|table| table["rows"].as_array()).flatten();
    let told: BTreeMap<_, _> =
        rows.filter_map(|row| Some((row["answer"].as_str()?, row["buffers"].as_u64()?))).collect();
    ensure!(told.get("unserved") == Some(&unserved), "{unserved} could not be served: {told:?}");
    for against in ["accepted_though_refused", "refused_though_accepted"] {
        ensure!(told.get(against) == Some(&0), "{against}: {told:?}");
    }
    let why = answer["why"].to_string();
    ensure!(!why.contains("what its rule says"), "{why}");
    Ok(())
}

/// Number of the probe's buffers that the kernel accepted.
pub fn accepted(stdout: &str) -> u64 {
    stdout.lines().filter(|line| line.starts_with("case ") && line.ends_with(" ok")).count() as u64
}

pub fn truth(context: &Context, stdout: &str) -> anyhow::Result<Counts> {
    let mut counts = Counts::new();
    let mut absent = 0;
    for line in stdout.lines().filter_map(|line| line.strip_prefix("case ")) {
        let (number, answer) = line.split_once(' ').context("a case without an answer")?;
        let number: usize = number.parse()?;
        if answer.starts_with(ABSENT) {
            println!("    case {number} {answer}");
            absent += 1;
            continue;
        }
        // The ring's entries are mapped from a file that is neither shmem nor hugetlb, and whose pages nobody tracks.
        let last = if number == CASES.len() { PRIVATE_FILE } else { LARGE };
        let answers = CASES.get(number).map_or(last, |case| case.answers);
        let own = answers[place(context)];
        ensure!(
            answer == own || own == UNDECIDED,
            "case {number}: the kernel answered {answer}, and its rule is {own}"
        );
        let answers = answers.map(str::to_owned).to_vec();
        *counts.entry((answers, answer.to_owned())).or_default() += 1;
    }
    let tried = counts.values().sum::<u64>() + absent;
    *counts.entry((ALL_TAKE.map(str::to_owned).to_vec(), "EFAULT".to_owned())).or_default() += unserved::count(stdout)?;
    ensure!(tried == CASES.len() as u64 + 2, "not all cases were tried: {counts:?}");
    let dax = if std::path::Path::new("/dev/pmem0").exists() { 0 } else { 3 };
    let secret = u64::from(context.kernel.version < Version(6, 5));
    ensure!(absent <= dax + secret, "{absent} cases are absent");
    Ok(counts)
}

/// Policy of this kernel.
pub fn own(context: &Context) -> &'static str {
    NAMES[place(context)]
}

/// Its index in [`NAMES`].
fn place(context: &Context) -> usize {
    match context.kernel.version {
        _ if context.kernel.refuses_files() => 1,
        version if version < Version(7, 2) => 3,
        _ => 4,
    }
}

/// Counts of a report, by the policies' answers and the kernel's own.
pub fn seen(judgements: &Value) -> anyhow::Result<Counts> {
    let mut counts = Counts::new();
    let clean = judgements["clean"].as_u64().context("no number of clean buffers")?;
    counts.insert((ALL_TAKE.map(str::to_owned).to_vec(), OK.to_owned()), clean);
    for judged in judgements["others"].as_array().context("no judged buffers")? {
        let verdicts = &judged["traits"]["verdicts"];
        let answers = NAMES.map(|name| verdicts[name].as_str().unwrap_or("absent").to_owned()).to_vec();
        let answer = result_name(-judged["errno"].as_i64().context("a judged buffer without errno")?);
        *counts.entry((answers, answer.clone())).or_default() += judged["buffers"].as_u64().context("no buffers")?;
    }
    Ok(counts)
}

/// Checks that pinscope determined the kernel's policy correctly.
fn agrees(context: &Context, judgements: &Value) -> anyhow::Result<()> {
    let own = own(context);
    ensure!(judgements["kernel_policy"] == own, "it is under {own}: {}", judgements["kernel_policy"]);
    ensure!(judgements["unjudged"] == 0, "unjudged: {}", judgements["unjudged"]);
    Ok(())
}
