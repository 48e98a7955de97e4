//! Figures of the daemon by workload: each cgroup's calls by the generator's account, and their sum.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};

use super::{policies, without_tracer};
use crate::{
    cgroup::{self, Cgroup, Version1},
    context::Context,
    daemon::{Daemon, Scrape, label},
    pinscope::{self, Running},
    protocol::{Test, TestResult, Verdict},
    ring::{Buffer, Request, Ring},
    scenario::Account,
    space::{Kind, Space},
    sys::PAGE,
};

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("daemon_workloads_by_cgroup", by_cgroup).within(Duration::from_mins(4)),
        Test::new("daemon_workloads_version_1", version_1).within(Duration::from_mins(3)),
        Test::new("daemon_workloads_short_lived", short_lived).within(Duration::from_mins(6)),
        Test::new("daemon_workloads_crowded_out", crowded_out).within(Duration::from_mins(3)),
        Test::new("daemon_workloads_off", off),
    ]
}

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const ACCOUNT: &str = "/tmp/guest-workload.json";

/// Runs this program inside a cgroup and returns its output.
fn inside(cgroup: &Cgroup, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = cgroup.command(&std::env::current_exe()?, arguments);
    let running = Running::start(pinscope::piped(&mut command))?;
    Ok(running.finish(Duration::from_mins(1))?.expect_code(0)?.stdout)
}

fn scenario(cgroup: &Cgroup, arguments: &[&str]) -> anyhow::Result<Account> {
    inside(cgroup, &[&["scenario", "--out", ACCOUNT], arguments].concat())?;
    Account::read(ACCOUNT)
}

/// Figures of a workload.
#[derive(Default)]
struct Truth {
    ok: u64,
    failed: u64,
    buffers: u64,
    bytes: u64,
    vmas: u64,
    before: u64,
    after: u64,
}

impl Truth {
    /// Sums up accounts in which every call was accepted.
    fn of(accounts: &[Account]) -> Self {
        let mut truth = Self::default();
        for call in accounts.iter().flat_map(|account| &account.calls).filter(|call| call.operation != "unregister") {
            truth.ok += u64::from(call.ret >= 0);
            truth.failed += u64::from(call.ret < 0);
            truth.buffers += call.buffers;
            truth.bytes += call.bytes;
            truth.vmas += call.vmas;
            truth.before += u64::from(call.installed() && call.requests_before == 0);
            truth.after += u64::from(call.installed() && call.requests_before > 0);
        }
        truth
    }

    fn holds(&self, context: &Context, scrape: &Scrape, workload: &str) -> anyhow::Result<()> {
        let calls = "pinscope_workload_registrations_total";
        let walked = u64::from(context.kernel.can_be_walked());
        for (name, more, expected) in [
            (calls, Some(("outcome", "ok")), self.ok),
            (calls, Some(("outcome", "failed")), self.failed),
            ("pinscope_workload_buffers_total", None, self.buffers),
            ("pinscope_workload_bytes_total", None, self.bytes),
            ("pinscope_workload_registration_vmas_sum", None, self.vmas * walked),
            ("pinscope_workload_registration_vmas_count", None, self.ok * walked),
            ("pinscope_workload_registration_duration_seconds_count", None, self.ok + self.failed),
            ("pinscope_workload_installations_total", Some(("requests", "before")), self.before),
            ("pinscope_workload_installations_total", Some(("requests", "after")), self.after),
        ] {
            let labels: Vec<_> = [("workload", workload)].into_iter().chain(more).collect();
            let seen = scrape.sum(name, &labels);
            ensure!((seen - expected as f64).abs() < 0.5, "{name} of {workload} {more:?}: {seen}, expected {expected}");
        }
        Ok(())
    }
}

fn by_cgroup(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let daemon = Daemon::start(context, &[])?;
    let make = |path: &str| Cgroup::new(cgroup::ROOT, path);
    let server = make("system.slice/server.service")?;
    let worker = make("system.slice/server.service/worker")?;
    let docker = make(&format!("system.slice/docker-{ID}.scope/init"))?;
    let pod = "kubepods.slice/kubepods-pod2f1ab5d4_8d4c_4b8e_9c53_6a3f0a7c1e22.slice";
    let kubernetes = make(&format!("{pod}/cri-containerd-{ID}.scope"))?;
    let batch = make("batch/job")?;

    // Two cgroups of one workload.
    let two =
        [scenario(&worker, &["setup_only", "--seconds", "1"])?, scenario(&server, &["switch_sets", "--count", "40"])?];
    let of_docker = [scenario(&docker, &["many_vmas", "--vmas", "80"])?];
    let of_pod = [scenario(&kubernetes, &["untouched"])?];
    let probe = inside(&batch, &["probe", "policies"])?;
    // One is removed before the first scrape.
    docker.remove()?;

    let scrape = daemon.scrape()?;
    let [name_docker, name_pod] =
        [format!("docker/{}", &ID[..12]), format!("pod/2f1ab5d4-8d4c-4b8e-9c53-6a3f0a7c1e22/{}", &ID[..12])];
    for (workload, accounts) in [("server.service", &two[..]), (&name_docker, &of_docker[..]), (&name_pod, &of_pod[..])]
    {
        Truth::of(accounts).holds(context, &scrape, workload)?;
    }
    let faults = |workload: &str| scrape.sum("pinscope_workload_page_faults_total", &[("workload", workload)]);
    ensure!(faults(&name_pod) > 0.0, "untouched memory was pinned without faults");
    refusals(context, &scrape, &probe)?;
    named(&scrape, &name_docker, &name_pod)?;
    make_up_the_whole(context, &scrape)?;
    // Its map entry is removed, its series stays.
    thread::sleep(Duration::from_millis(1200));
    let later = [daemon.scrape()?, daemon.scrape()?];
    Truth::of(&of_docker).holds(context, &later[1], &name_docker)?;
    make_up_the_whole(context, &later[1])?;
    daemon.end()?;
    for cgroup in [worker, server, kubernetes, batch] {
        cgroup.remove()?;
    }
    Ok(Verdict::Passed)
}

fn refusals(context: &Context, scrape: &Scrape, probe: &str) -> anyhow::Result<()> {
    const NAME: &str = "pinscope_workload_policy_refusals_total";
    if !context.kernel.can_be_walked() {
        ensure!(scrape.samples(NAME).count() == 0, "judged without a walk");
        return Ok(());
    }
    let mut truth: BTreeMap<&str, u64> = BTreeMap::new();
    let counts = policies::truth(context, probe)?;
    for ((answers, _), buffers) in counts.iter().filter(|((_, own), _)| own == "ok") {
        for (policy, _) in policies::NAMES.into_iter().zip(answers).filter(|(_, errno)| *errno != "ok") {
            *truth.entry(policy).or_default() += buffers;
        }
    }
    for policy in policies::NAMES {
        let seen = scrape.sum(NAME, &[("workload", "/batch/job"), ("policy", policy)]);
        let expected = truth.get(policy).copied().unwrap_or(0);
        ensure!((seen - expected as f64).abs() < 0.5, "{policy} would refuse {seen}, expected {expected}");
    }
    Ok(())
}

fn named(scrape: &Scrape, docker: &str, pod: &str) -> anyhow::Result<()> {
    let info = |workload: &str, labels: &[(&str, &str)]| {
        let all = [&[("workload", workload)], labels].concat();
        let seen = scrape.sum("pinscope_workload_info", &all);
        ensure!((seen - 1.0).abs() < 0.5, "no pinscope_workload_info with {all:?}");
        Ok(())
    };
    info("server.service", &[("kind", "unit"), ("unit", "server.service"), ("slice", "system.slice")])?;
    info(docker, &[("kind", "container"), ("container_id", ID), ("runtime", "docker"), ("pod_uid", "")])?;
    info(pod, &[("kind", "container"), ("container_id", ID), ("runtime", "containerd")])?;
    info(pod, &[("pod_uid", "2f1ab5d4-8d4c-4b8e-9c53-6a3f0a7c1e22")])?;
    info("/batch/job", &[("kind", "cgroup"), ("unit", "")])?;
    info("other", &[("kind", "other")])?;
    info("ended", &[("kind", "ended")])?;
    let own = scrape.sum("pinscope_workloads", &[]);
    ensure!((own - 4.0).abs() < 0.5, "{own} workloads with series of their own, expected 4");
    Ok(())
}

/// The sum over all workloads equals the total figure.
fn make_up_the_whole(context: &Context, scrape: &Scrape) -> anyhow::Result<()> {
    const TIMES: &str = "pinscope_registration_duration_seconds";
    let installing = ["register", "update", "clone"];
    let of_operations = |name: &str, more: &[(&str, &str)]| {
        let sum = |operation| scrape.sum(name, &[&[("operation", operation)], more].concat());
        installing.map(sum).iter().sum::<f64>()
    };
    let total = |name: &str| scrape.sum(name, &[]);
    let mut pairs = vec![
        ("pinscope_workload_registrations_total".to_owned(), of_operations("pinscope_ledger_calls_total", &[])),
        ("pinscope_workload_registration_duration_seconds_sum".to_owned(), of_operations(&format!("{TIMES}_sum"), &[])),
        (
            "pinscope_workload_registration_duration_seconds_count".to_owned(),
            of_operations(&format!("{TIMES}_count"), &[]),
        ),
        ("pinscope_workload_registration_vmas_sum".to_owned(), total("pinscope_registration_vmas_sum")),
        ("pinscope_workload_registration_vmas_count".to_owned(), total("pinscope_registration_vmas_count")),
        ("pinscope_workload_pin_seconds_total".to_owned(), total("pinscope_pin_duration_seconds_sum")),
        ("pinscope_workload_buffers_total".to_owned(), total("pinscope_registration_buffers_sum")),
        ("pinscope_workload_bytes_total".to_owned(), total("pinscope_registration_bytes_sum")),
        ("pinscope_workload_page_faults_total".to_owned(), total("pinscope_page_faults_total")),
        ("pinscope_workload_installations_total".to_owned(), total("pinscope_installations_total")),
        (
            "pinscope_workload_policy_refusals_total".to_owned(),
            scrape.sum("pinscope_policy_refusals_total", &[("outcome", "ok")]),
        ),
    ];
    if !context.kernel.can_be_walked() {
        pairs.retain(|(name, _)| !name.contains("vmas") && !name.contains("policy"));
    }
    for (name, whole) in &pairs {
        ensure!(scrape.samples(name).next().is_some(), "{name} is not served");
        let sum = total(name);
        let most = 1e-9_f64.max(whole.abs() * 1e-9);
        ensure!((sum - whole).abs() <= most, "{name}: {sum} over all workloads, {whole} in all");
    }
    for (of_workloads, whole, is_time) in [
        ("pinscope_workload_registration_duration_seconds_bucket", format!("{TIMES}_bucket"), true),
        ("pinscope_workload_registration_vmas_bucket", "pinscope_registration_vmas_bucket".to_owned(), false),
    ] {
        let bounds =
            |name| -> BTreeSet<_> { scrape.samples(name).filter_map(|(labels, _)| label(labels, "le")).collect() };
        let (coarse, fine) = (bounds(of_workloads), bounds(&whole));
        let both: Vec<_> = coarse.intersection(&fine).copied().collect();
        // Without a walk, neither side has any.
        let enough = if fine.is_empty() { 0 } else { 5 };
        ensure!(both.len() >= enough, "{of_workloads} and {whole} have only {both:?} in common");
        for bound in both {
            let sum = scrape.sum(of_workloads, &[("le", bound)]);
            let le = [("le", bound)];
            let whole = if is_time { of_operations(&whole, &le) } else { scrape.sum(&whole, &le) };
            ensure!((sum - whole).abs() < 0.5, "{of_workloads} up to {bound}: {sum} over all, {whole} in all");
        }
    }
    Ok(())
}

fn version_1(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let hierarchy = match Version1::mount(&["pids", "memory", "cpu"]) {
        Ok(hierarchy) => hierarchy,
        Err(error) => return Ok(Verdict::Ignored(format!("no controller can be mounted as cgroup v1: {error}"))),
    };
    println!("    by the controller {}", hierarchy.controller);
    let daemon = Daemon::start(context, &[])?;
    let service = Cgroup::new(&hierarchy.mount, "system.slice/old.service")?;
    let short = Cgroup::new(&hierarchy.mount, "short")?;
    let account = [scenario(&service, &["switch_sets", "--count", "10"])?];
    let of_short = [scenario(&short, &["setup_only", "--seconds", "1"])?];
    short.remove()?;
    for _ in 0..3 {
        let scrape = daemon.scrape()?;
        Truth::of(&account).holds(context, &scrape, "old.service")?;
        Truth::of(&of_short).holds(context, &scrape, "/short")?;
        make_up_the_whole(context, &scrape)?;
        thread::sleep(Duration::from_millis(700));
    }
    daemon.end()?;
    service.remove()?;
    Ok(Verdict::Passed)
}

/// Thousands of cgroups that come and go.
fn short_lived(context: &Context) -> TestResult {
    const ALL: u64 = 2_000;
    /// More than the map holds, before the first scrape.
    const UNSEEN: u64 = 1_400;
    const CAP: usize = 200;
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let all = if context.quick { UNSEEN + 200 } else { ALL };
    let daemon = Daemon::start(context, &[])?;
    let mut seen = Seen::default();
    seen.holds(context, &daemon.scrape()?, 0)?;
    let first = daemon.resident_kib()?;
    let mut space = Space::new(PAGE);
    let page = [Buffer { address: space.map(Kind::Anon, PAGE)?, length: PAGE }];
    let ring = Ring::new()?;
    let mut calls = 0;
    for number in 0..all {
        let cgroup = Cgroup::new(cgroup::ROOT, &format!("run{number}.service"))?;
        cgroup.enter()?;
        // The second call is refused: a table exists already.
        for _ in 0..=(number % 2) {
            ring.call(Request::Register(&page));
            calls += 1;
        }
        ring.call(Request::Unregister);
        cgroup::leave(cgroup::ROOT)?;
        cgroup.remove()?;
        if number >= UNSEEN && number % 100 == 99 {
            seen.holds(context, &daemon.scrape()?, calls)?;
        }
    }
    let last = daemon.scrape()?;
    seen.holds(context, &last, calls)?;
    ensure!(seen.most == CAP, "{} series at most, expected {CAP}, other and ended", seen.most);
    let unattributed = last.sum("pinscope_workload_unattributed_calls_total", &[]);
    ensure!(unattributed > 0.0, "{UNSEEN} cgroups fit into the map");
    let folded = last.sum("pinscope_workloads_folded_total", &[("cause", "cap")]);
    let resident = daemon.resident_kib()?;
    println!("    {all} cgroups, {calls} calls: {folded} beyond the cap, {unattributed} calls without room");
    println!("    the daemon's memory: {first} KiB at first, {resident} KiB in the end; {} scrapes", seen.scrapes);
    ensure!(resident < 64 << 10, "the daemon takes {resident} KiB");
    daemon.end()?;
    Ok(Verdict::Passed)
}

/// A user with more scopes than the maps and seats hold, one of them named like a container. The calls of another unit
/// and of that container must not be misattributed.
fn crowded_out(context: &Context) -> TestResult {
    const SCOPES: u64 = 1_200;
    const USER: &str = "user.slice/user-1000.slice/user@1000.service";
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let daemon = Daemon::start(context, &[])?;
    let mut space = Space::new(PAGE);
    let page = [Buffer { address: space.map(Kind::Anon, PAGE)?, length: PAGE }];
    let ring = Ring::new()?;
    let register = |cgroup: &Cgroup, calls: u64| {
        cgroup.enter()?;
        for _ in 0..calls {
            ring.call(Request::Register(&page));
            ring.call(Request::Unregister);
        }
        cgroup::leave(cgroup::ROOT)
    };
    let mut all = Vec::new();
    let forged = Cgroup::new(cgroup::ROOT, &format!("{USER}/docker-{ID}.scope"))?;
    register(&forged, 1)?;
    all.push(forged);
    let mut seen = Seen::default();
    for number in 1..SCOPES {
        let scope = Cgroup::new(cgroup::ROOT, &format!("{USER}/app.slice/run-{number}.scope"))?;
        register(&scope, 1)?;
        all.push(scope);
        if number == 300 {
            seen.holds(context, &daemon.scrape()?, number + 1)?;
        }
    }
    for (unit, calls) in [("system.slice/db.service", 7), ("system.slice/cron.service", 2)] {
        let service = Cgroup::new(cgroup::ROOT, unit)?;
        register(&service, calls)?;
        all.push(service);
    }
    for _ in 0..2 {
        let scrape = daemon.scrape()?;
        make_up_the_whole(context, &scrape)?;
        let calls = |workload: &str| scrape.sum("pinscope_workload_registrations_total", &[("workload", workload)]);
        for (workload, truth) in [("db.service", 7.0), ("cron.service", 2.0), (&format!("docker/{}", &ID[..12]), 0.0)] {
            let seen = calls(workload);
            ensure!((seen - truth).abs() < 0.5, "{workload} made {seen} calls, expected {truth}");
        }
        let everyone = scrape.sum("pinscope_workload_registrations_total", &[]);
        ensure!((everyone - (SCOPES + 9) as f64).abs() < 0.5, "{everyone} calls over all workloads");
        ensure!(scrape.sum("pinscope_workload_unattributed_calls_total", &[]) < 0.5, "calls without a workload");
    }
    daemon.end()?;
    all.into_iter().rev().try_for_each(Cgroup::remove)?;
    Ok(Verdict::Passed)
}

/// State of the last scrape.
#[derive(Default)]
struct Seen {
    /// Counters by name and labels.
    counters: BTreeMap<String, f64>,
    most: usize,
    scrapes: u32,
}

impl Seen {
    fn holds(&mut self, context: &Context, scrape: &Scrape, calls: u64) -> anyhow::Result<()> {
        make_up_the_whole(context, scrape)?;
        let sum = scrape.sum("pinscope_workload_registrations_total", &[]);
        ensure!((sum - calls as f64).abs() < 0.5, "{sum} calls over all workloads, expected {calls}");
        let series = scrape.samples("pinscope_workload_info").count() - 2;
        self.most = self.most.max(series);
        let mut counters = BTreeMap::new();
        for name in ["registrations_total", "bytes_total", "registration_duration_seconds_bucket", "pin_seconds_total"]
        {
            let name = format!("pinscope_workload_{name}");
            for (labels, value) in scrape.samples(&name) {
                counters.insert(format!("{name}{{{labels}}}"), value);
            }
        }
        for (name, before) in &self.counters {
            let after = counters.get(name).with_context(|| format!("{name} is gone within minutes"))?;
            ensure!(after >= before, "{name} decreased from {before} to {after}");
        }
        self.counters = counters;
        self.scrapes += 1;
        Ok(())
    }
}

fn off(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let daemon = Daemon::start(context, &["--workloads", "0"])?;
    Ring::new()?.call(Request::Bare(15, 3));
    let scrape = daemon.scrape()?;
    for name in ["pinscope_workload_info", "pinscope_workloads", "pinscope_workload_registrations_total"] {
        ensure!(scrape.samples(name).count() == 0, "{name} is served");
    }
    ensure!(scrape.registrations()?.all() > 0, "nothing was counted");
    daemon.end()?;
    // The cgroup of this process is that of the guest's init.
    ensure!(fs::read_to_string("/proc/self/cgroup")?.lines().any(|line| line == "0::/"), "left inside a cgroup");
    Ok(Verdict::Passed)
}
