//! `cargo xtask test`: runs all checks, on this machine and on every kernel of the matrix.

mod families;
mod host;
mod times;

use std::{
    fmt::Write as _,
    path::PathBuf,
    process::ExitCode,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::Args;

use families::{Mode, OLDER, is_quick, left_out};
use times::Times;

use crate::{
    artifacts, build_cache,
    cache::Cache,
    dashboards, dist,
    exec::quote,
    liburing, setup,
    test_results::{SECTION, SECTION_EXIT, Section, TestResults, tested},
    vm::{
        Debian, FIO, Guest, Kernel,
        debian::{BOOKWORM, TRIXIE},
        kernel::{QUICK, SERIES, USUAL},
    },
};

#[derive(Args)]
pub struct Options {
    /// Test on the kernel of this series only (can be repeated)
    #[arg(long, value_name = "SERIES")]
    kernel: Vec<String>,
    /// Test on three kernels only, with smaller tests
    #[arg(long)]
    quick: bool,
    /// Run every test on every kernel in both attach modes at full size: about three hours
    #[arg(long, conflicts_with = "quick")]
    full: bool,
    /// Run no guests
    #[arg(long, conflicts_with = "kernel")]
    host_only: bool,
    /// Seed of the random layouts; each guest prints the seed that it used
    #[arg(long)]
    seed: Option<u64>,
    /// Number of jobs that run at a time: guests, and the checks on this machine as one job [default: number of CPUs
    /// plus one]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=16))]
    jobs: Option<u8>,
    /// End a guest after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    deadline: u64,
    /// Run only the tests whose names contain this, and no lints
    filter: Option<String>,
}

/// Circumstances that need their own boot.
struct Scenario {
    /// Series of the kernel.
    series: &'static str,
    /// Words added to the kernel's command line.
    append: Option<&'static str>,
    /// Suite, if the guest is a complete Debian system with the package.
    debian: Option<Debian>,
    /// Circumstances of the guest program, tested one after the other. Names of their tests begin with theirs.
    circumstances: &'static [&'static str],
    /// Prefixes of tests that are left out, because another scenario covers them.
    left_out: &'static [&'static str],
}

const SCENARIOS: [Scenario; 3] = [
    Scenario {
        series: USUAL,
        append: Some("lsm=lockdown lockdown=confidentiality"),
        debian: None,
        circumstances: &["lockdown"],
        left_out: &[],
    },
    Scenario {
        series: USUAL,
        append: None,
        debian: Some(TRIXIE),
        circumstances: &["debian", "prometheus"],
        left_out: &[],
    },
    Scenario {
        series: OLDER,
        append: None,
        debian: Some(BOOKWORM),
        circumstances: &["debian"],
        left_out: &["debian_reload", "debian_strict", "debian_watchdog", "debian_journal"],
    },
];

/// Time window for rates: Prometheus has scraped for a few minutes only.
const WINDOW: &str = "2m";

/// A line of the final table.
struct Row {
    what: String,
    results: TestResults,
    elapsed: Duration,
    failures: Vec<String>,
    /// Tests of a guest with their durations.
    tests: Vec<(String, Duration)>,
}

/// One boot: a kernel, additions to its command line, and the runs of the guest program.
struct Boot {
    kernel: Kernel,
    name: String,
    append: Option<&'static str>,
    debian: Option<Debian>,
    /// Name and arguments of each run.
    sections: Vec<(String, Vec<String>)>,
}

impl Boot {
    /// Title of a section's row in the table.
    fn title(&self, section: &str) -> String {
        format!("Linux {} {section}", self.kernel.series)
    }
}

/// A section whose lines are being read.
struct SectionInProgress {
    name: String,
    section: Section,
    begun: Instant,
    /// Arrival of the last line.
    last: Instant,
    /// Arrival of the last line that ended a test.
    tested: Instant,
    tests: Vec<(String, Duration)>,
}

impl SectionInProgress {
    fn new(name: &str) -> Self {
        let now = Instant::now();
        let name = name.to_owned();
        Self { name, section: Section::default(), begun: now, last: now, tested: now, tests: Vec::new() }
    }

    fn read_line(&mut self, line: &str) {
        self.section.read_line(line);
        self.last = Instant::now();
        if let Some((name, _)) = tested(line) {
            self.tests.push((name.to_owned(), self.last.duration_since(self.tested)));
            self.tested = self.last;
        }
    }
}

/// Files that every guest of the matrix gets, in addition to packages.
struct Files {
    pinscope: PathBuf,
    guest: PathBuf,
    programs: Vec<liburing::Program>,
    /// The .deb, or the reason why there is none.
    package: Result<PathBuf, String>,
    /// Expressions of the dashboards and the rules.
    expressions: String,
}

pub fn test(options: &Options) -> Result<ExitCode> {
    for series in &options.kernel {
        if !SERIES.contains(&series.as_str()) {
            bail!("unknown kernel series {series}; known are {}", SERIES.join(", "));
        }
    }
    setup::build_tools()?;
    let cache = Cache::open()?;
    let last = Times::kept(&cache);
    let is_clean = build_cache::restore(&cache)?;
    let mut rows = Vec::new();
    let guests = if options.host_only { Ok(None) } else { guests(&cache, options, &mut rows).map(Some) };
    let guests = guests.unwrap_or_else(|error| {
        // Continue, so that the results of the other checks are still shown.
        rows.push(failed_row("guests", Duration::ZERO, format!("{error:#}")));
        None
    });
    rows.extend(run_all(&cache, guests.as_ref(), &last, options));
    rows.sort_by_key(place);
    if is_clean && options.is_whole() {
        cache_compiled_packages(&cache, &rows);
    }
    let times = times::summary(&rows, &last, options.is_whole());
    let code = conclude(&rows, &times, options.filter.as_deref());
    if code == ExitCode::SUCCESS && options.is_whole() {
        last.keep(&rows, &cache)?;
    }
    Ok(code)
}

/// Caches the compiled packages. Failed tests do not matter, but a row without a passed test means that a build may
/// have failed. An error here does not fail the run.
fn cache_compiled_packages(cache: &Cache, rows: &[Row]) {
    if rows.iter().all(|row| row.results.passed > 0 || row.results.failed == 0)
        && let Err(error) = build_cache::save(cache)
    {
        println!("compiled packages are not cached for the next run: {error:#}");
    }
}

impl Options {
    /// Whether this is the run that CI makes. Only its durations are compared.
    fn is_whole(&self) -> bool {
        self.kernel.is_empty() && self.filter.is_none() && !self.quick && !self.full && !self.host_only
    }

    fn jobs(&self) -> usize {
        // One more than there are CPUs, because a guest that waits leaves its CPU idle.
        let default = || thread::available_parallelism().map_or(2, |cpus| cpus.get() + 1);
        self.jobs.map_or_else(default, usize::from)
    }
}

/// Sort key: rows that belong to no guest first, then by kernel, independent of which guest ended first.
fn place(row: &Row) -> Option<usize> {
    SERIES.iter().rposition(|series| row.what.starts_with(&format!("Linux {series} ")))
}

/// A unit of work for one thread.
enum Job<'a> {
    Host,
    Boot(&'a Boot),
}

/// Runs lints and tests on this machine in parallel with the guests. The longest jobs start first, so that none is left
/// running alone at the end.
fn run_all(cache: &Cache, guests: Option<&Guests>, last: &Times, options: &Options) -> Vec<Row> {
    let mut jobs: Vec<_> = guests.iter().flat_map(|guests| guests.boots.iter().map(Job::Boot)).collect();
    jobs.push(Job::Host);
    jobs.sort_by_key(|job| job.length(last));
    let jobs = Mutex::new(jobs);
    let rows = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..options.jobs() {
            scope.spawn(|| {
                loop {
                    let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).pop();
                    let of_job = match (next, guests) {
                        (Some(Job::Boot(boot)), Some(guests)) => run_boot(cache, boot, &guests.files, options),
                        (Some(Job::Host), _) => host::rows(options.filter.as_deref(), options.full)
                            .unwrap_or_else(|error| vec![failed_row("host", Duration::ZERO, format!("{error:#}"))]),
                        _ => break,
                    };
                    rows.lock().unwrap_or_else(PoisonError::into_inner).extend(of_job);
                }
            });
        }
    });
    rows.into_inner().unwrap_or_else(PoisonError::into_inner)
}

impl Job<'_> {
    /// Duration in the last run, or an estimate.
    fn length(&self, last: &Times) -> Duration {
        let Self::Boot(boot) = self else { return Duration::MAX };
        let known = boot.sections.iter().filter_map(|(section, _)| last.beginning(&boot.title(section)));
        let known: Duration = known.sum();
        if !known.is_zero() {
            known
        } else if QUICK.contains(&boot.kernel.series.as_str()) || boot.debian.is_some() {
            Duration::from_mins(3)
        } else {
            Duration::from_mins(1)
        }
    }
}

/// Prints the table and, as the last line, the totals.
fn conclude(rows: &[Row], times: &str, filter: Option<&str>) -> ExitCode {
    let mut all = TestResults::default();
    println!("\n{:<34} {:>7} {:>7} {:>8} {:>8}", "", "PASSED", "FAILED", "IGNORED", "SECONDS");
    for Row { what, results, elapsed, .. } in rows {
        let TestResults { passed, failed, ignored } = results;
        println!("{what:<34} {passed:>7} {failed:>7} {ignored:>8} {:>8.1}", elapsed.as_secs_f64());
        all.add(*results);
    }
    print!("{times}");
    for Row { what, failures, .. } in rows {
        for failure in failures {
            println!("failed: {what}: {failure}");
        }
    }
    if let Some(filter) = filter
        && all == TestResults::default()
    {
        println!("no test's name contains {filter:?}");
        all.failed += 1;
    }
    println!("{} passed, {} failed", all.passed, all.failed);
    if all.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn failed_row(what: impl Into<String>, elapsed: Duration, why: String) -> Row {
    Row { what: what.into(), results: TestResults::step(false), elapsed, failures: vec![why], tests: vec![] }
}

/// A row for preparation. It counts as no test, so that a run without tests is recognised.
fn prepared(what: &str, started: Instant) -> Row {
    Row {
        what: what.to_owned(),
        results: TestResults::default(),
        elapsed: started.elapsed(),
        failures: vec![],
        tests: vec![],
    }
}

/// The kernel matrix: one boot per kernel, and one run per attach mode in it.
struct Guests {
    boots: Vec<Boot>,
    files: Files,
}

/// Builds and fetches what the guests need. A kernel that is unavailable becomes a failed row.
fn guests(cache: &Cache, options: &Options, rows: &mut Vec<Row>) -> Result<Guests> {
    println!("== guests");
    setup::guest_tools(cache)?;
    let started = Instant::now();
    let (pinscope, guest) = (artifacts::pinscope()?, artifacts::guest()?);
    rows.push(prepared("binaries for guests", started));
    let started = Instant::now();
    // Fetched once, before several guests start at the same time.
    crate::vm::rootfs::packages(cache, FIO)?;
    let programs = liburing::programs(cache).unwrap_or_else(|error| {
        println!("liburing's own tests are missing, and the guest tests that need them will fail: {error:#}");
        Vec::new()
    });
    let mut boots = Vec::new();
    for series in matrix(options) {
        match Kernel::get(cache, series) {
            Ok(kernel) => boots.extend(boots_of(&kernel, options)),
            Err(error) => rows.push(failed_row(format!("Linux {series}"), Duration::ZERO, format!("{error:#}"))),
        }
    }
    let package = if boots.iter().any(|boot: &Boot| boot.debian.is_some()) {
        dist::packages().map(|packages| packages.deb).map_err(|error| format!("{error:#}"))
    } else {
        Err("no guest needs it".to_owned())
    };
    let expressions = dashboards::expressions(WINDOW)?;
    rows.push(prepared("kernels, packages, programs", started));
    Ok(Guests { boots, files: Files { pinscope, guest, programs, package, expressions } })
}

fn matrix(options: &Options) -> Vec<&str> {
    if !options.kernel.is_empty() {
        options.kernel.iter().map(String::as_str).collect()
    } else if options.quick {
        QUICK.to_vec()
    } else {
        SERIES.to_vec()
    }
}

fn boots_of(kernel: &Kernel, options: &Options) -> Vec<Boot> {
    let mut common = Vec::new();
    if options.quick {
        common.push("--quick".to_owned());
    }
    if let Some(seed) = options.seed {
        common.extend(["--seed".to_owned(), seed.to_string()]);
    }
    common.extend(options.filter.clone());
    let section = |name: &str, arguments: &[&str]| {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).chain(common.iter().cloned());
        (name.to_owned(), arguments.collect())
    };
    let is_thin = !options.full && options.kernel.is_empty() && options.filter.is_none();
    let mode = |mode: Mode| {
        let mut arguments = vec!["test", "--attach", mode.name()];
        if is_thin {
            without(&mut arguments, &left_out(&kernel.series, mode));
            if !options.quick && is_quick(&kernel.series) {
                arguments.push("--quick");
            }
        }
        section(mode.name(), &arguments)
    };
    let mut boots = vec![Boot {
        kernel: kernel.clone(),
        name: "test".to_owned(),
        append: None,
        debian: None,
        sections: Mode::of(&kernel.series).map(mode).into(),
    }];
    let of_kernel = SCENARIOS.iter().filter(|scenario| scenario.series == kernel.series);
    boots.extend(of_kernel.filter_map(|scenario| boot_of(kernel, scenario, is_thin, options.filter.as_deref())));
    boots
}

/// Boot of a scenario. A filter selects circumstances by name, or tests whose names begin with a circumstance's.
fn boot_of(kernel: &Kernel, scenario: &Scenario, is_thin: bool, filter: Option<&str>) -> Option<Boot> {
    let section = |circumstance: &&'static str| {
        let mut arguments = match filter {
            Some(filter) if circumstance.contains(filter) => vec!["circumstance", circumstance],
            Some(filter) if filter.starts_with(circumstance) => vec!["circumstance", circumstance, filter],
            Some(_) => return None,
            None => vec!["circumstance", circumstance],
        };
        if is_thin {
            without(&mut arguments, scenario.left_out);
        }
        Some(((*circumstance).to_owned(), arguments.into_iter().map(str::to_owned).collect()))
    };
    let sections: Vec<_> = scenario.circumstances.iter().filter_map(section).collect();
    let (name, _) = sections.first()?;
    Some(Boot {
        kernel: kernel.clone(),
        name: format!("test-{name}"),
        append: scenario.append,
        debian: scenario.debian,
        sections,
    })
}

fn without(arguments: &mut Vec<&str>, families: &[&'static str]) {
    arguments.extend(families.iter().flat_map(|family| ["--without", family]));
}

/// Script with the runs of a boot in order, each between two markers.
fn script(sections: &[(String, Vec<String>)]) -> String {
    let mut script = String::new();
    for (name, arguments) in sections {
        let arguments: Vec<_> = arguments.iter().map(|argument| quote(argument)).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(script, "echo {SECTION}{name}\nguest {}\necho {SECTION_EXIT}$?", arguments.join(" "));
    }
    script
}

/// Guest with the files under test: the Debian package in a Debian system, otherwise the program alone.
fn machine(boot: &Boot, files: &Files) -> Result<Guest, String> {
    let mut machine = Guest::new(boot.kernel.clone(), &boot.name, script(&boot.sections));
    machine = machine.file("/usr/bin/guest", 0o755, &files.guest);
    if let Some(debian) = boot.debian {
        let package = files.package.as_ref().map_err(|why| format!("there is no package: {why}"))?;
        machine = machine.debian(debian).file("/root/pinscope.deb", 0o644, package);
        machine = machine.text("/root/expressions.json", 0o644, &files.expressions);
    } else {
        machine = machine.file("/usr/bin/pinscope", 0o755, &files.pinscope).packages(FIO);
        for (there, here) in &files.programs {
            machine = machine.file(there, 0o755, here);
        }
    }
    Ok(match boot.append {
        Some(words) => machine.append(words),
        None => machine,
    })
}

fn run_boot(cache: &Cache, boot: &Boot, files: &Files, options: &Options) -> Vec<Row> {
    let machine = match machine(boot, files) {
        Ok(machine) => machine.deadline(Duration::from_secs(options.deadline)),
        Err(why) => return vec![failed_row(boot.title(&boot.name), Duration::ZERO, why)],
    };

    let mut sections: Vec<SectionInProgress> = Vec::new();
    let outcome = machine.run(cache, &mut |line| {
        if let Some(name) = line.strip_prefix(SECTION) {
            sections.push(SectionInProgress::new(name));
        } else if let Some(seen) = sections.last_mut() {
            seen.read_line(line);
            if !line.starts_with(SECTION_EXIT) {
                println!("[{} {}] {line}", boot.kernel.series, seen.name);
            }
        } else {
            println!("[{}] {line}", boot.kernel.series);
        }
    });

    let mut rows: Vec<Row> = Vec::new();
    for (name, _) in &boot.sections {
        let at = sections.iter().position(|seen| seen.name == *name);
        let seen = at.map_or_else(|| SectionInProgress::new(name), |at| sections.swap_remove(at));
        let elapsed = seen.last.duration_since(seen.begun);
        let section = seen.section.end();
        rows.push(Row {
            what: boot.title(name),
            results: section.results,
            elapsed,
            failures: section.failures,
            tests: seen.tests,
        });
    }
    // A failure of the machine itself is reported in a row of its own, with its log.
    let trouble = match outcome {
        Ok(outcome) => outcome.trouble().unwrap_or_else(|error| Some(format!("{error:#}"))),
        Err(error) => Some(format!("{error:#}")),
    };
    if let Some(trouble) = trouble {
        println!("[{}] {trouble}", boot.kernel.series);
        let first = trouble.lines().next().unwrap_or_default().to_owned();
        rows.push(failed_row(boot.title(&format!("{}: the guest", boot.name)), Duration::ZERO, first));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_picks_circumstances_and_their_tests() {
        let kernel = Kernel {
            series: USUAL.to_owned(),
            release: String::new(),
            package: String::new(),
            version: String::new(),
            vmlinuz: PathBuf::new(),
        };
        let sections = |filter| {
            let boots = SCENARIOS.iter().filter_map(|scenario| boot_of(&kernel, scenario, false, filter));
            boots.flat_map(|boot| boot.sections).map(|(_, words)| words.join(" ")).collect::<Vec<_>>()
        };
        let debian = "circumstance debian";
        assert_eq!(sections(None), ["circumstance lockdown", debian, "circumstance prometheus", debian]);
        assert_eq!(sections(Some("prom")), ["circumstance prometheus"]);
        let one = format!("{debian} debian_watchdog");
        assert_eq!(sections(Some("debian_watchdog")), [one.as_str(), &one]);
        assert!(sections(Some("fio")).is_empty());
    }

    #[test]
    fn a_filter_that_fits_no_test_is_a_failure() {
        let rows = [prepared("binaries for guests", Instant::now())];
        assert_eq!(conclude(&rows, "", Some("typo")), ExitCode::FAILURE);
        assert_eq!(conclude(&rows, "", None), ExitCode::SUCCESS);
    }

    #[test]
    fn a_filter_reaches_the_guest_as_one_word() {
        let sections = [("kprobe".to_owned(), vec!["test".to_owned(), "it's a".to_owned()])];
        assert_eq!(
            script(&sections),
            "echo PINSCOPE-SECTION kprobe\nguest test 'it'\\''s a'\necho PINSCOPE-SECTION-EXIT $?\n"
        );
    }
}
