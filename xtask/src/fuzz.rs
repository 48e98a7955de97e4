//! The fuzzers of `fuzz/`, built with cargo-fuzz's flags except for the sanitizer: it needs a nightly compiler, and
//! there is almost no unsafe code for it to check.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{
    exec::{exec, read},
    workspace,
};

/// Names of the fuzzers, as in fuzz/Cargo.toml.
pub const TARGETS: [&str; 6] = ["btf", "cgroups", "configuration", "http", "kallsyms", "record"];
/// Time that each fuzzer runs under `cargo xtask test --full`.
pub const SECONDS: u32 = 60;
/// Flags for the compiler's coverage counters and traced comparisons, in the form that libFuzzer reads.
const FLAGS: [&str; 10] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg",
    "fuzzing",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "-Ccodegen-units=4",
    "-Cdebug-assertions",
];

/// Run the fuzzers; inputs that make one fail go to fuzz/artifacts
#[derive(Args)]
pub struct Options {
    /// Fuzzers to run [default: all]
    target: Vec<String>,
    /// Seconds that each fuzzer runs
    #[arg(long, default_value_t = SECONDS)]
    seconds: u32,
    /// Maximum number of runs of each fuzzer
    #[arg(long, value_name = "N")]
    runs: Option<u64>,
    /// Maximum length of an input in bytes
    #[arg(long, value_name = "N", default_value_t = 2048)]
    length: u32,
    /// Add inputs that reach more code to the corpora in the work tree
    #[arg(long)]
    keep: bool,
}

pub fn fuzz(options: &Options) -> Result<()> {
    let named: Vec<_> = options.target.iter().map(String::as_str).collect();
    let targets = if named.is_empty() { TARGETS.to_vec() } else { named };
    build()?;
    targets.into_iter().try_for_each(|target| run(target, options))
}

/// Runs one fuzzer for as long as `cargo xtask test --full` does.
pub fn test(target: &str) -> Result<()> {
    build()?;
    run(target, &Options { target: vec![], seconds: SECONDS, runs: None, length: 2048, keep: false })
}

/// The host's target triple. With an explicit `--target`, build scripts and proc-macros are built without the flags.
fn host() -> Result<String> {
    let said = read(std::process::Command::new("rustc").arg("-vV"))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not report its host")
}

fn folder() -> PathBuf {
    workspace::root().join("fuzz")
}

fn build() -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--quiet", "--locked", "--release", "--target", &host()?, "--manifest-path"]);
    cargo.arg(folder().join("Cargo.toml")).arg("--target-dir").arg(folder().join("target"));
    cargo.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    exec(&mut cargo)
}

fn run(target: &str, options: &Options) -> Result<()> {
    let folder = folder();
    let (corpus, artifacts) = (folder.join("corpus").join(target), folder.join("artifacts").join(target));
    // libFuzzer writes new inputs to the first folder.
    let found = folder.join("target/corpus").join(target);
    for needed in [&artifacts, &found] {
        fs::create_dir_all(needed).with_context(|| format!("cannot make {}", needed.display()))?;
    }
    let program = folder.join("target").join(host()?).join("release").join(target);
    let mut fuzzer = std::process::Command::new(&program);
    fuzzer.arg(&found).arg(&corpus);
    fuzzer.arg(format!("-artifact_prefix={}/", artifacts.display()));
    fuzzer.args([format!("-max_total_time={}", options.seconds), format!("-max_len={}", options.length)]);
    fuzzer.args(["-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1", "-verbosity=0"]);
    fuzzer.args(options.runs.map(|runs| format!("-runs={runs}")));
    exec(&mut fuzzer)?;
    if options.keep {
        exec(std::process::Command::new(&program).arg("-merge=1").arg(&corpus).arg(&found))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_run_and_has_a_corpus() {
        let manifest = fs::read_to_string(folder().join("Cargo.toml")).expect("the fuzzers' manifest");
        let named: Vec<_> = manifest.lines().filter_map(|line| line.strip_prefix("path = \"fuzz_targets/")).collect();
        assert_eq!(named, TARGETS.map(|target| format!("{target}.rs\"")));
        for target in TARGETS {
            assert!(folder().join("corpus").join(target).read_dir().is_ok_and(|mut files| files.next().is_some()));
        }
    }
    /// `--locked` refuses a lock file that lacks dependencies, but only a run of the fuzzers would notice.
    #[test]
    fn the_lock_file_has_what_the_program_depends_on() {
        let lock = fs::read_to_string(folder().join("Cargo.lock")).expect("the fuzzers' lock file");
        let manifest = fs::read_to_string(workspace::root().join("tracer/Cargo.toml")).expect("a manifest");
        let (_, behind) = manifest.split_once("\n[dependencies]\n").expect("dependencies");
        let named = behind.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_once(" = "));
        let (_, behind) = lock.split_once("\nname = \"tracer\"\n").expect("the program");
        let (locked, _) = behind.split_once(']').expect("what it depends on");
        for (name, _) in named {
            assert!(locked.contains(&format!("\"{name}")), "{name} is missing: cd fuzz; cargo update --workspace");
        }
    }
}
