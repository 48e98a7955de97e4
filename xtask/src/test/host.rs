//! Checks without a guest: formatting, lints, unit tests, and the files shipped beside the program. The latter are
//! checked with the tools of the programs that read them.

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{Row, failed_row};
use crate::{
    dashboards,
    exec::{read, show},
    fuzz, kubernetes, receiver, setup, systemd_units,
    test_results::{TestResults, cargo_line},
    toolchain::{self, Compiler},
    workspace,
};

/// Rows of all checks, with the fuzzers only in a `full` run. With a filter, rows of the selected tests only.
pub fn rows(filter: Option<&str>, full: bool) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    if filter.is_some() {
        println!("== no lints: a filter picks tests");
        rows.push(tests(filter)?);
        return Ok(rows);
    }
    lints(&mut rows)?;
    rows.push(tests(None)?);
    // systemd only checks that the program exists and is executable, so any program will do.
    rows.push(task("systemd units", || systemd_units::check_work_tree(&std::env::current_exe()?)));
    rows.extend(dashboards::steps().into_iter().map(|(what, check)| task(what, check)));
    rows.push(task("Kubernetes manifests", kubernetes::check));
    rows.push(task("OTLP, a real receiver", export));
    if full {
        rows.extend(fuzz::TARGETS.map(|target| task(&format!("fuzzing, {target}"), || fuzz::test(target))));
    }
    Ok(rows)
}

/// Formatting, and clippy with warnings denied, for the host's side and the eBPF side.
fn lints(rows: &mut Vec<Row>) -> Result<()> {
    let mut format = workspace::cargo();
    format.args(["fmt", "--all", "--", "--check"]);
    rows.push(step("formatting", &mut format));
    let every: &[&str] = &["--workspace", "--all-targets"];
    // The guest program has no test run on the host, so `--all-targets` does not include it. `--workspace` is needed
    // nevertheless: for a single package, cargo would resolve other features and rebuild shared dependencies.
    let guest: &[&str] = &["--workspace", "--test", "guest"];
    for (what, targets) in [("clippy", every), ("clippy, guest", guest)] {
        let mut clippy = workspace::cargo();
        clippy.args(["clippy", "--quiet"]).args(targets).args(["--", "--deny", "warnings"]);
        rows.push(step(what, &mut clippy));
    }
    rows.push(ebpf_lints()?);
    Ok(())
}

/// Lints of the eBPF side, for its own target and with the clippy of its own compiler.
fn ebpf_lints() -> Result<Row> {
    let compiler = toolchain::find_compiler().context("the eBPF compiler that was installed is missing")?;
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
        // cargo finds cargo-clippy through PATH, and cargo-clippy finds its driver there. Both must belong to this
        // compiler, not to rustup.
        let own = program.parent().map(PathBuf::from).unwrap_or_default();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([own].into_iter().chain(std::env::split_paths(&path)))?;
        cargo.env("PATH", path).env("CARGO", program);
    }
    Ok(step("clippy, eBPF", &mut cargo))
}

/// Sends the request of a comprehensive fixture to a third-party server and reads it back.
fn export() -> Result<()> {
    let mut cargo = workspace::cargo();
    // Same targets as for the tests before: otherwise cargo would resolve other features and rebuild shared
    // dependencies.
    cargo.args(["test", "--workspace", "a_real_receiver", "--", "--ignored"]);
    let said = read(cargo.env("PINSCOPE_VICTORIA_METRICS", receiver::program()?))?;
    // cargo reports success if a filter matches no test.
    if !said.contains("test result: ok. 1 passed") {
        bail!("`{}` ran no test", show(&cargo));
    }
    Ok(())
}

/// A command that must succeed. Its output is shown if it fails.
fn step(what: &str, command: &mut Command) -> Row {
    task(what, || read(command).map(drop))
}

/// A piece of work that must succeed.
fn task(what: &str, work: impl FnOnce() -> Result<()>) -> Row {
    println!("== {what}");
    let started = Instant::now();
    match work() {
        Ok(()) => Row {
            what: what.to_owned(),
            results: TestResults::step(true),
            elapsed: started.elapsed(),
            failures: vec![],
            tests: vec![],
        },
        Err(error) => {
            let why = format!("{error:#}");
            println!("{why}");
            failed_row(what, started.elapsed(), why)
        }
    }
}

/// Runs unit and doc tests, and counts them while they run.
fn tests(filter: Option<&str>) -> Result<Row> {
    println!("== host tests");
    let started = Instant::now();
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--workspace", "--no-fail-fast"]).args(filter);
    let mut child = cargo
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{}`", show(&cargo)))?;
    let mut row = Row {
        what: "host tests".to_owned(),
        results: TestResults::default(),
        elapsed: Duration::ZERO,
        failures: vec![],
        tests: vec![],
    };
    let stdout = child.stdout.take().context("cargo test has no output")?;
    // Index of the failed test whose output is being read.
    let mut failing = None;
    for line in BufReader::new(stdout).lines() {
        let line = line.context("cannot read what cargo test prints")?;
        println!("{line}");
        if let Some(results) = cargo_line(&line) {
            row.results.add(results);
        } else if let Some(name) = line.strip_prefix("test ").and_then(|test| test.strip_suffix(" ... FAILED")) {
            row.failures.push(name.to_owned());
        } else if let Some(name) = line.strip_prefix("---- ").and_then(|title| title.strip_suffix(" stdout ----")) {
            failing = row.failures.iter().position(|failure| failure == name);
        } else if line == "failures:" {
            failing = None;
        } else if let Some(failure) = failing.and_then(|at| row.failures.get_mut(at)) {
            failure.extend(["\n    ", &line]);
        }
    }
    let status = child.wait()?;
    if !status.success() && row.results.failed == 0 {
        row.results.failed = 1;
        row.failures.push(format!("`{}`: {status}", show(&cargo)));
    }
    row.elapsed = started.elapsed();
    Ok(row)
}
