//! Tests of the evidence behind the answers: by ring, by process, by cost. Compared with the scenarios' own accounts,
//! in one session.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::without_tracer;
use crate::{
    context::Context,
    kernel::Version,
    pinscope,
    protocol::{Test, TestResult, Verdict, no_problems},
    report::Report,
    scenario::{Account, Call},
};

/// Scenarios that install, are refused, change tables at run time, fault, and use many VMAs and files.
const SCENARIOS: [&str; 16] = [
    "setup_only --seconds 0",
    "switch_sets --count 8",
    "update_slots --count 24",
    "fills_slots --count 64",
    "refills_slots --count 9",
    "empties_slots --count 3",
    "clones --count 3",
    "many_rings --count 8",
    "idle",
    "untouched --count 3",
    "many_vmas --count 3 --vmas 64",
    "two_memfds --count 3",
    "small_iovecs --count 2 --pages 512",
    "small_pages --count 2 --pages 1024",
    "reregistration --count 9",
    "memlock --count 3",
];

/// Size of a huge page in bytes, from which on a buffer counts as large.
const LARGE: u64 = 2 << 20;

pub fn tests() -> Vec<Test> {
    vec![Test::new("evidence_of_scenarios", of_scenarios).within(Duration::from_mins(3))]
}

fn of_scenarios(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let binary = std::env::current_exe()?;
    let path = |number: usize| format!("/tmp/guest-evidence-{number}.json");
    let run = |(number, scenario)| format!("{} scenario --out {} {scenario}", binary.display(), path(number));
    let script: Vec<_> = SCENARIOS.iter().enumerate().map(run).collect();
    let script = script.join(" && ");
    let arguments = ["report", "--json", "--attach", &context.attach, "--", "/bin/sh", "-c", &script];
    let finished = pinscope::run(&arguments, Duration::from_mins(2))?.expect_code(0)?;
    let report = Report::of(&finished)?;
    let accounts: Vec<Account> =
        (0..SCENARIOS.len()).map(|number| Account::read(&path(number))).collect::<anyhow::Result<_>>()?;
    installations(report.json(), &accounts)?;
    let mut problems = Vec::new();
    for account in &accounts {
        let found = rings(report.json(), account).and_then(|()| habits(context, report.json(), account));
        problems.extend(found.err().map(|error| format!("{}: {error:#}", account.scenario)));
    }
    no_problems(&problems)?;
    if context.kernel.can_be_walked() {
        costs(report.json(), &accounts)?;
        largest(report.json(), &accounts)?;
        shared_files(report.json(), &accounts)?;
    }
    Ok(Verdict::Passed)
}

fn accepted(account: &Account) -> impl Iterator<Item = &Call> {
    account.calls.iter().filter(|call| call.installed())
}

/// Installations before and after the ring's first request, and the order of each within its ring.
fn installations(report: &Value, accounts: &[Account]) -> anyhow::Result<()> {
    let after = accounts.iter().flat_map(accepted).filter(|call| call.requests_before > 0).count();
    let all = accounts.iter().flat_map(accepted).count();
    let told = &report["installations"];
    ensure!(told["after_requests"] == after && told["before_requests"] == all - after, "{told}: {after} of {all}");
    for kind in ["table", "fill", "replacement", "update", "clone", "emptying"] {
        let calls = || accounts.iter().flat_map(|account| &account.calls).filter(|call| call.kind == kind);
        let after = calls().filter(|call| call.requests_before > 0).count();
        let told = if kind == "emptying" { &told["emptying_updates"] } else { &told["kinds"][kind] };
        let truth = (after, calls().count() - after);
        ensure!(told["after_requests"] == truth.0 && told["before_requests"] == truth.1, "{kind}: {told}: {truth:?}");
    }
    let rings: usize = accounts.iter().map(|account| by_ring(account).len()).sum();
    let ordinal = &report["rings"]["ordinal"];
    let first = &ordinal["buckets"][0];
    ensure!(ordinal["count"] == all && first["lower"] == 1 && first["count"] == rings, "{rings} rings: {ordinal}");
    ensure!(report["rings"]["age"]["count"] == all, "ages: {}", report["rings"]["age"]);
    ensure!(report["rings"]["gap"]["count"] == all - rings, "gaps: {}", report["rings"]["gap"]);
    ensure!(report["rings"]["unlisted"] == 0, "unlisted: {}", report["rings"]["unlisted"]);
    Ok(())
}

/// Accepted installations of each ring, by its fd. No scenario closes a ring.
fn by_ring(account: &Account) -> BTreeMap<i32, Vec<&Call>> {
    let mut rings: BTreeMap<i32, Vec<&Call>> = BTreeMap::new();
    for call in accepted(account) {
        rings.entry(account.rings[call.ring].fd).or_default().push(call);
    }
    rings
}

fn rings(report: &Value, account: &Account) -> anyhow::Result<()> {
    let all = report["rings"]["list"].as_array().context("no rings")?;
    let has = |ring: &Value| ["registers", "updates", "clones"].iter().any(|kind| ring[kind] != 0);
    let told: Vec<&Value> = all.iter().filter(|ring| ring["pid"] == account.pid && has(ring)).collect();
    let truth = by_ring(account);
    ensure!(told.len() == truth.len(), "{} rings, expected {}", told.len(), truth.len());
    for ring in told {
        let fd = ring["fd"].as_i64().context("a ring without fd")? as i32;
        let calls = truth.get(&fd).with_context(|| format!("no ring {fd}"))?;
        let number = calls[0].ring;
        let count = |name: &str| calls.iter().filter(|call| call.operation == name).count();
        let after = calls.iter().filter(|call| call.requests_before > 0).count();
        ensure!(ring["registers"] == count("register") && ring["updates"] == count("update"), "{ring}");
        let let_go = |call: &&Call| call.ring == number && call.operation == "unregister" && call.ret >= 0;
        let let_go = account.calls.iter().filter(let_go).count();
        ensure!(ring["unregisters"] == let_go && ring["after_requests"] == after, "{ring}: {after}");
        ensure!(ring["gaps"] == calls.len() - 1, "{ring}");
        let used = |call: &&&Call| call.requests_before > 0;
        let switches = calls.iter().filter(|call| call.switched).filter(used).count();
        let fills = || calls.iter().filter(|call| call.kind == "fill" && !call.switched);
        ensure!(ring["switches"] == switches && ring["switch_gaps"] == switches, "{ring}: {switches} switches");
        let late = fills().filter(used).count();
        ensure!(ring["fills"] == fills().count() && ring["fills_after_requests"] == late, "{ring}: {late} late fills");
        let (before, made) = account.rings[number].created_ns;
        let age = |call: &Call| call.started_ns - made..=call.ended_ns - before;
        let (first, last) = (calls[0], calls[calls.len() - 1]);
        within(&ring["first_age_ns"], age(first)).context("age at the first")?;
        within(&ring["last_age_ns"], age(last)).context("age at the last")?;
        within(&ring["span_ns"], last.started_ns.saturating_sub(first.ended_ns)..=last.ended_ns - first.started_ns)?;
        let gaps =
            calls.windows(2).map(|pair| (pair[1].started_ns - pair[0].ended_ns, pair[1].ended_ns - pair[0].started_ns));
        if let Some((least, most)) = gaps.min() {
            within(&ring["shortest_gap_ns"], least..=most).context("shortest gap")?;
        }
    }
    Ok(())
}

fn within(value: &Value, range: std::ops::RangeInclusive<u64>) -> anyhow::Result<()> {
    match value.as_u64() {
        Some(told) if range.contains(&told) => Ok(()),
        _ => bail!("{value} is not within {range:?}"),
    }
}

fn habits(context: &Context, report: &Value, account: &Account) -> anyhow::Result<()> {
    if account.calls.is_empty() {
        return Ok(());
    }
    let processes = report["processes"].as_array().context("no processes")?;
    let process = processes.iter().find(|process| process["pid"] == account.pid).context("no such process")?;
    let habits = &process["habits"];
    let told = |key: &str| habits[key].as_u64().with_context(|| format!("no {key}"));
    let refused = account.calls.iter().filter(|call| call.result == "ENOMEM").count() as u64;
    ensure!(told("enomem")? == refused, "{habits}: ENOMEM {refused} times");
    let name = account.scenario.as_str();
    let calls = accepted(account).count() as u64;
    // The buffers of these tables are adjacent, except for the first.
    let side_by_side =
        ["setup_only", "switch_sets", "many_rings", "small_iovecs", "refills_slots", "empties_slots", "clones"];
    let tables = accepted(account).filter(|call| call.kind == "table" && side_by_side.contains(&name));
    let adjacent: u64 = tables.map(|call| call.buffers - 1).sum();
    ensure!(told("adjacent_buffers")? == adjacent, "{habits}: {adjacent} adjacent buffers");
    // Repeated sets: all calls of one kind except the first, or the first two.
    let (repeated, elsewhere) = match name {
        "reregistration" | "small_iovecs" => (calls - 1, 0),
        "switch_sets" => (calls - 2, 0),
        // The same set, once on each ring.
        "many_rings" => (0, calls - 1),
        _ => (0, 0),
    };
    let seen = (told("repeated")?, told("elsewhere")?);
    ensure!(seen == (repeated, elsewhere), "{habits}: repeated on the same and on other rings {repeated}, {elsewhere}");
    let large = if name == "small_pages" || name == "untouched" {
        accepted(account).filter(|call| call.bytes >= LARGE)
    } else {
        return Ok(());
    };
    // Before 5.17, a trampoline does not receive the slot through which a buffer's bvecs are found.
    if context.attach == "fentry" && context.kernel.version < Version(5, 17) {
        return Ok(());
    }
    let (count, bytes) = large.fold((0, 0), |(count, bytes), call| (count + call.buffers, bytes + call.bytes));
    ensure!(told("large_buffers")? == count && told("large_bytes")? == bytes, "{habits}: {count} large buffers");
    // One bvec per page, since no buffer is in huge pages.
    let has_bvecs = told("large_bvecs")? * 4096;
    ensure!(has_bvecs == bytes, "{habits}: bvecs for {has_bvecs} of {bytes} bytes");
    if name == "untouched" {
        let (faults, most) = (told("minor_faults")?, account.minor_faults);
        ensure!(faults <= most && faults * 10 >= most * 9, "{faults} faults, {most} around the calls");
        ensure!(context.kernel.version < Version(5, 17) || told("many_vmas")? == 0, "{habits}");
    }
    Ok(())
}

/// Every accepted buffer is in the cell of its VMAs and pages; the sums equal those of the accounts.
fn costs(report: &Value, accounts: &[Account]) -> anyhow::Result<()> {
    let cells = report["costs"].as_array().context("no costs")?;
    let sum = |key: &str| cells.iter().filter_map(|cell| cell[key].as_u64()).sum::<u64>();
    let taken = || accounts.iter().flat_map(accepted);
    let truth = |of: fn(&Call) -> u64| taken().map(of).sum::<u64>();
    for (key, expected) in [
        ("buffers", truth(|call| call.buffers)),
        ("vmas", truth(|call| call.buffers_vmas)),
        ("bytes", truth(|call| call.bytes)),
    ] {
        ensure!(sum(key) == expected, "costs have {} {key}, expected {expected}", sum(key));
    }
    let clock = truth(|call| call.ended_ns - call.started_ns);
    ensure!(sum("pin_ns") > 0 && sum("pin_ns") + sum("pass_ns") <= clock, "times above our clock's {clock}");
    let passes = (sum("passes"), sum("pass_vmas"));
    ensure!(passes == (sum("buffers"), sum("vmas")), "with no writer about all passes count: {passes:?}");
    for cell in cells {
        let (buffers, vmas) = (cell["buffers"].as_u64().unwrap_or(0), cell["vmas"].as_u64().unwrap_or(0));
        let (from, to) = (cell["vmas_from"].as_u64().unwrap_or(0), cell["vmas_to"].as_u64().unwrap_or(0));
        ensure!(from * buffers <= vmas && vmas <= to.saturating_mul(buffers), "VMAs out of their cell: {cell}");
    }
    let wide = cells.iter().filter(|cell| cell["vmas_from"] == 64).filter_map(|cell| cell["buffers"].as_u64());
    ensure!(wide.sum::<u64>() == 3, "three buffers lie in 64 VMAs: {}", report["costs"]);
    Ok(())
}

fn largest(report: &Value, accounts: &[Account]) -> anyhow::Result<()> {
    let most = |of: fn(&Call) -> u64| accounts.iter().flat_map(accepted).map(of).max().unwrap_or(0);
    for (key, vmas) in
        [("largest_registration", most(|call| call.vmas)), ("largest_buffer", most(|call| call.most_vmas))]
    {
        let told = &report[key];
        ensure!(told["vmas"] == vmas && told["comm"] == "guest", "{key} is {told}, expected {vmas}");
    }
    Ok(())
}

/// One memfd in each buffer: each file occurs in one buffer.
fn shared_files(report: &Value, accounts: &[Account]) -> anyhow::Result<()> {
    let account = accounts.iter().find(|account| account.scenario == "two_memfds").context("no memfds")?;
    let files = report["shared_buffer_files"].as_array().context("no files")?;
    let named = files.iter().filter(|file| {
        file["name"] == "memfd:pinscope-guest" && file["pid"] == account.pid && file["filesystem"] == "tmpfs"
    });
    let buffers: u64 = named.filter_map(|file| file["buffers"].as_u64()).sum();
    let truth = 2 * account.calls.iter().map(|call| call.buffers).sum::<u64>();
    ensure!(buffers == truth, "{buffers} times a memfd, expected {truth}: {}", report["shared_buffer_files"]);
    Ok(())
}
