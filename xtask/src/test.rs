//! `cargo xtask test`: all that can be checked, here and on every kernel of the matrix.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{
    artifacts,
    cache::Cache,
    exec::{exec, quote, show},
    liburing, setup,
    tally::{SECTION, SECTION_EXIT, Section, Tally, cargo_line},
    toolchain::{self, Compiler},
    vm::{
        FIO, Guest, Kernel,
        kernel::{QUICK, SERIES, USUAL},
    },
    workspace,
};

#[derive(Args)]
pub struct Options {
    /// Test on the kernel of this series only (can be repeated)
    #[arg(long, value_name = "SERIES")]
    kernel: Vec<String>,
    /// Three kernels and smaller tests
    #[arg(long)]
    quick: bool,
    /// Every test on every kernel in both attach modes, at its full size: some two hours
    #[arg(long, conflicts_with = "quick")]
    full: bool,
    /// Run no guests
    #[arg(long, conflicts_with = "kernel")]
    host_only: bool,
    /// Seed of the random layouts; each guest prints the one that it took
    #[arg(long)]
    seed: Option<u64>,
    /// How many guests run at a time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    jobs: u8,
    /// End a guest after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    deadline: u64,
    /// Run only the tests with this in their names, and no lints
    filter: Option<String>,
}

/// Bad circumstances that take a boot of their own.
struct Scenario {
    name: &'static str,
    /// For the kernel's command line.
    append: &'static str,
    /// For the guest program.
    arguments: &'static [&'static str],
}

const SCENARIOS: [Scenario; 1] = [Scenario {
    name: "lockdown",
    append: "lsm=lockdown lockdown=confidentiality",
    arguments: &["circumstance", "lockdown"],
}];

/// Tests of the command line: on the kernels of a quick run, in one attach mode.
const COMMAND_LINE: &str = "cli_";
/// Tests of filters and ends of sessions: on the same.
const SESSIONS: &str = "session_";
/// Tests of the answers, of what is hooked on request, and of programs that others wrote: on the same.
const ON_REQUEST: [&str; 6] = ["answers_", "audit_", "locks_", "phases_", "liburing_", "scenario_"];
/// The kernel before [`USUAL`] that most machines have.
const OLDER: &str = "6.1";
/// The newest of the matrix.
const NEWEST: &str = "7.3";

/// A line of the table at the end.
struct Row {
    what: String,
    tally: Tally,
    elapsed: Duration,
    failures: Vec<String>,
}

/// A boot: a kernel, what is added to its command line, and the runs of the guest program in it.
struct Boot {
    kernel: Kernel,
    name: String,
    append: Option<&'static str>,
    /// Name and arguments.
    sections: Vec<(String, Vec<String>)>,
}

/// What every guest of the matrix gets besides packages.
struct Files {
    pinscope: PathBuf,
    guest: PathBuf,
    programs: Vec<liburing::Program>,
}

pub fn test(options: &Options) -> Result<ExitCode> {
    for series in &options.kernel {
        if !SERIES.contains(&series.as_str()) {
            bail!("no kernel series {series}; there are {}", SERIES.join(", "));
        }
    }
    setup::build_tools()?;
    let mut rows = Vec::new();
    if options.filter.is_none() {
        lints(&mut rows)?;
    } else {
        println!("== no lints: a filter picks tests");
    }
    rows.push(host_tests(options.filter.as_deref())?);
    if !options.host_only {
        match guests(options) {
            Ok(of_guests) => rows.extend(of_guests),
            // What was found out so far is to be shown all the same.
            Err(error) => rows.push(failed_row("guests", Duration::ZERO, format!("{error:#}"))),
        }
    }
    Ok(conclude(&rows, options.filter.as_deref()))
}

/// The table, and as the last line the sums.
fn conclude(rows: &[Row], filter: Option<&str>) -> ExitCode {
    let mut all = Tally::default();
    println!("\n{:<34} {:>7} {:>7} {:>8} {:>8}", "", "PASSED", "FAILED", "IGNORED", "SECONDS");
    for Row { what, tally, elapsed, .. } in rows {
        let Tally { passed, failed, ignored } = tally;
        println!("{what:<34} {passed:>7} {failed:>7} {ignored:>8} {:>8.1}", elapsed.as_secs_f64());
        all.add(*tally);
    }
    for Row { what, failures, .. } in rows {
        for failure in failures {
            println!("failed: {what}: {failure}");
        }
    }
    if let Some(filter) = filter
        && all == Tally::default()
    {
        println!("no test has {filter:?} in its name");
        all.failed += 1;
    }
    println!("{} passed, {} failed", all.passed, all.failed);
    if all.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn failed_row(what: impl Into<String>, elapsed: Duration, why: String) -> Row {
    Row { what: what.into(), tally: Tally::step(false), elapsed, failures: vec![why] }
}

/// Formatting, and clippy with warnings denied, on the host's side and on the eBPF side.
fn lints(rows: &mut Vec<Row>) -> Result<()> {
    let mut format = workspace::cargo();
    format.args(["fmt", "--all", "--", "--check"]);
    rows.push(step("formatting", &mut format));
    let mut clippy = workspace::cargo();
    clippy.args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"]);
    rows.push(step("clippy", &mut clippy));
    rows.push(ebpf_lints()?);
    Ok(())
}

/// The eBPF side, for its own target and by its own compiler's clippy.
fn ebpf_lints() -> Result<Row> {
    let compiler = toolchain::find_compiler().context("no eBPF compiler, although it was set up")?;
    setup::lint_tools(&compiler)?;
    let mut cargo = compiler.cargo();
    cargo.arg("clippy").args(compiler.arguments());
    cargo.args(["--quiet", "--locked", "--release", "--package", "tracer-ebpf", "--bin", "pinscope-ebpf"]);
    cargo.args(["--target", toolchain::TARGET, "--target-dir"]).arg(workspace::target().join("ebpf"));
    cargo.current_dir(workspace::root()).env("RUSTFLAGS", "--deny=warnings");
    for name in ["RUSTUP_TOOLCHAIN", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_ENCODED_RUSTFLAGS"] {
        cargo.env_remove(name);
    }
    if let Compiler::Prebuilt { cargo: program, .. } = &compiler {
        // cargo finds cargo-clippy, and that its driver, on the PATH: it has to be this compiler's, not rustup's.
        let own = program.parent().map(PathBuf::from).unwrap_or_default();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([own].into_iter().chain(std::env::split_paths(&path)))?;
        cargo.env("PATH", path).env("CARGO", program);
    }
    Ok(step("clippy, eBPF", &mut cargo))
}

/// A command that has to succeed.
fn step(what: &str, command: &mut Command) -> Row {
    println!("== {what}");
    let started = Instant::now();
    match exec(command) {
        Ok(()) => Row { what: what.to_owned(), tally: Tally::step(true), elapsed: started.elapsed(), failures: vec![] },
        Err(error) => failed_row(what, started.elapsed(), format!("{error:#}")),
    }
}

/// Unit and doc tests, counted as they go by.
fn host_tests(filter: Option<&str>) -> Result<Row> {
    println!("== host tests");
    let started = Instant::now();
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--workspace", "--no-fail-fast"]).args(filter);
    let mut child = cargo
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{}`", show(&cargo)))?;
    let mut row =
        Row { what: "host tests".to_owned(), tally: Tally::default(), elapsed: Duration::ZERO, failures: vec![] };
    let stdout = child.stdout.take().context("cargo test has no output")?;
    for line in BufReader::new(stdout).lines() {
        let line = line.context("cannot read what cargo test prints")?;
        println!("{line}");
        if let Some(tally) = cargo_line(&line) {
            row.tally.add(tally);
        } else if let Some(name) = line.strip_prefix("test ").and_then(|test| test.strip_suffix(" ... FAILED")) {
            row.failures.push(name.to_owned());
        }
    }
    let status = child.wait()?;
    if !status.success() && row.tally.failed == 0 {
        row.tally.failed = 1;
        row.failures.push(format!("`{}`: {status}", show(&cargo)));
    }
    row.elapsed = started.elapsed();
    Ok(row)
}

/// The kernel matrix: every kernel a boot, every attach mode a run in it.
fn guests(options: &Options) -> Result<Vec<Row>> {
    println!("== guests");
    let cache = Cache::open()?;
    setup::guest_tools(&cache)?;
    let (pinscope, guest) = (artifacts::pinscope()?, artifacts::guest()?);
    // Fetched once, here: the guests that start at the same time find it.
    crate::vm::rootfs::packages(&cache, FIO)?;
    let programs = liburing::programs(&cache).unwrap_or_else(|error| {
        println!("liburing's own tests are missing, and the guest tests that need them will fail: {error:#}");
        Vec::new()
    });
    let files = Files { pinscope, guest, programs };

    let mut rows = Vec::new();
    let mut boots = VecDeque::new();
    for series in matrix(options) {
        match Kernel::get(&cache, series) {
            Ok(kernel) => boots.extend(boots_of(&kernel, options)),
            Err(error) => rows.push(failed_row(format!("Linux {series}"), Duration::ZERO, format!("{error:#}"))),
        }
    }
    // Those with most to do come first, so that none of them is left running alone in the end.
    boots.make_contiguous().sort_by_key(|boot: &Boot| !QUICK.contains(&boot.kernel.series.as_str()));
    let boots = Mutex::new(boots);
    let rows = Mutex::new(rows);
    thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| {
                loop {
                    let next = boots.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some(boot) = next else { break };
                    let of_boot = run_boot(&cache, &boot, &files, options);
                    rows.lock().unwrap_or_else(PoisonError::into_inner).extend(of_boot);
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
    // Guests end in any order; the table is by kernel.
    let place = |row: &Row| SERIES.iter().rposition(|series| row.what.starts_with(&format!("Linux {series} ")));
    rows.sort_by_key(place);
    Ok(rows)
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
    let mut kprobe = vec!["test", "--attach", "kprobe"];
    let mut fentry = vec!["test", "--attach", "fentry"];
    if !options.full && options.kernel.is_empty() && options.filter.is_none() {
        thin_out(&kernel.series, options, &mut kprobe, &mut fentry);
    }
    let mut boots = vec![Boot {
        kernel: kernel.clone(),
        name: "test".to_owned(),
        append: None,
        sections: vec![section("kprobe", &kprobe), section("fentry", &fentry)],
    }];
    let picked = |scenario: &&Scenario| {
        let filter = options.filter.as_deref();
        kernel.series == USUAL && filter.is_none_or(|filter| scenario.name.contains(filter))
    };
    boots.extend(SCENARIOS.iter().filter(picked).map(|scenario| Boot {
        kernel: kernel.clone(),
        name: format!("test-{}", scenario.name),
        append: Some(scenario.append),
        sections: vec![(
            scenario.name.to_owned(),
            scenario.arguments.iter().map(|&argument| argument.to_owned()).collect(),
        )],
    }));
    boots
}

/// Leaves out of the whole matrix what its neighbours show as well. What a session makes of its records and of its command
/// line knows nothing of the hooks; what is hooked on request, and the programs of others, take a session each.
fn thin_out<'a>(series: &str, options: &Options, kprobe: &mut Vec<&'a str>, fentry: &mut Vec<&'a str>) {
    without(fentry, &[COMMAND_LINE, SESSIONS]);
    if !QUICK.contains(&series) {
        without(kprobe, &[COMMAND_LINE, SESSIONS]);
        without(kprobe, &ON_REQUEST);
        without(fentry, &ON_REQUEST);
        if !options.quick {
            fentry.push("--quick");
            // All sizes come on the oldest two, the usual and the newest kernel.
            kprobe.extend((series != OLDER).then_some("--quick"));
        }
    } else if series != USUAL {
        // On the usual kernel in both modes, on the oldest by kprobes, on the newest by trampolines.
        without(if series == NEWEST { kprobe } else { fentry }, &ON_REQUEST);
    }
}

fn without(section: &mut Vec<&str>, families: &[&'static str]) {
    section.extend(families.iter().flat_map(|family| ["--without", family]));
}

/// The runs of a boot, one after the other, each between two marks.
fn script(sections: &[(String, Vec<String>)]) -> String {
    let mut script = String::new();
    for (name, arguments) in sections {
        let arguments: Vec<_> = arguments.iter().map(|argument| quote(argument)).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(script, "echo {SECTION}{name}\nguest {}\necho {SECTION_EXIT}$?", arguments.join(" "));
    }
    script
}

fn run_boot(cache: &Cache, boot: &Boot, files: &Files, options: &Options) -> Vec<Row> {
    let title = |section: &str| format!("Linux {} {section}", boot.kernel.series);
    let mut machine = Guest::new(boot.kernel.clone(), &boot.name, script(&boot.sections))
        .file("/usr/bin/pinscope", 0o755, &files.pinscope)
        .file("/usr/bin/guest", 0o755, &files.guest)
        .packages(FIO)
        .deadline(Duration::from_secs(options.deadline));
    for (there, here) in &files.programs {
        machine = machine.file(there, 0o755, here);
    }
    if let Some(words) = boot.append {
        machine = machine.append(words);
    }

    let mut sections: Vec<(String, Section, Instant, Duration)> = Vec::new();
    let outcome = machine.run(cache, &mut |line| {
        if let Some(name) = line.strip_prefix(SECTION) {
            sections.push((name.to_owned(), Section::default(), Instant::now(), Duration::ZERO));
        } else if let Some((name, section, started, elapsed)) = sections.last_mut() {
            section.see(line);
            *elapsed = started.elapsed();
            if !line.starts_with(SECTION_EXIT) {
                println!("[{} {name}] {line}", boot.kernel.series);
            }
        } else {
            println!("[{}] {line}", boot.kernel.series);
        }
    });

    let mut rows: Vec<Row> = Vec::new();
    for (name, _) in &boot.sections {
        let at = sections.iter().position(|(begun, ..)| begun == name);
        let (section, elapsed) = at.map_or_else(
            || (Section::default(), Duration::ZERO),
            |at| {
                let (_, section, _, elapsed) = sections.swap_remove(at);
                (section, elapsed)
            },
        );
        let section = section.end();
        rows.push(Row { what: title(name), tally: section.tally, elapsed, failures: section.failures });
    }
    // What went wrong with the machine itself comes besides, with its log.
    let trouble = match outcome {
        Ok(outcome) => outcome.trouble().unwrap_or_else(|error| Some(format!("{error:#}"))),
        Err(error) => Some(format!("{error:#}")),
    };
    if let Some(trouble) = trouble {
        println!("[{}] {trouble}", boot.kernel.series);
        let first = trouble.lines().next().unwrap_or_default().to_owned();
        rows.push(failed_row(title(&format!("{}: the guest", boot.name)), Duration::ZERO, first));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_reaches_the_guest_as_one_word() {
        let sections = [("kprobe".to_owned(), vec!["test".to_owned(), "it's a".to_owned()])];
        assert_eq!(
            script(&sections),
            "echo PINSCOPE-SECTION kprobe\nguest test 'it'\\''s a'\necho PINSCOPE-SECTION-EXIT $?\n"
        );
    }
}
