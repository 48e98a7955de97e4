//! The test program inside a guest. It makes registrations over known mappings, and compares pinscope's output with the
//! kernel, /proc/self/maps and its own clock.
#![expect(clippy::unwrap_used, reason = "a panic in a test is caught, and is that test's failure")]

mod attempt;
mod bench;
mod call_counts;
mod cgroup;
mod clock;
mod compare;
mod conforms;
mod context;
mod contract;
mod daemon;
mod errno;
mod fault;
mod filesystem;
mod generate;
mod http;
mod kernel;
mod ledger;
mod maps;
mod pinscope;
mod process;
mod protocol;
mod record;
mod report;
mod ring;
mod scenario;
mod space;
mod start;
mod sys;
mod systemd;
mod tests;
mod trace;
mod user;
mod watch;
mod watchdog;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use protocol::Test;

/// pinscope's tests and workloads inside a guest.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Runs the tests whose names contain FILTER.
    Test {
        /// Attach mode of pinscope; with `none`, only the kernel is tested.
        #[arg(long)]
        attach: Attach,
        #[command(flatten)]
        choice: Choice,
    },
    /// Lists the tests.
    List,
    /// Tests for a guest that was booted in a special way: `lockdown`, or `debian` and `prometheus` in a Debian system.
    Circumstance {
        name: String,
        #[command(flatten)]
        choice: Choice,
    },
    /// Runs a workload; prints its calls and the kernel's answers as JSON.
    Gen(generate::Generate),
    /// Runs a workload whose correct answers are known; prints its account as one line of JSON.
    Scenario(scenario::Options),
    /// Measures one operation; prints one line of JSON.
    Bench(bench::Bench),
    /// Runs a program as an unprivileged user with a few capabilities.
    AsUser(user::Options),
    /// Measures the start of a program; prints one line of JSON.
    Start(start::Start),
    /// Internal: the part of a test that runs in a process of its own.
    #[command(hide = true)]
    Probe { name: String },
}

/// Selection of tests, and their size.
#[derive(Args)]
struct Choice {
    /// Seed of all random choices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run fewer cases.
    #[arg(long)]
    quick: bool,
    /// Leave out tests whose names begin with this (can be repeated).
    #[arg(long)]
    without: Vec<String>,
    /// Part of a name.
    filter: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Attach {
    Kprobe,
    Fentry,
    #[value(name = "kprobe.multi")]
    Multi,
    Auto,
    None,
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Action::Test { attach, choice } => run(attach, &choice, tests::all()),
        Action::List => {
            for test in tests::all() {
                println!("{}", test.name);
            }
            ExitCode::SUCCESS
        }
        Action::Circumstance { name, choice } => match tests::circumstance(&name) {
            Some(tests) => run(Attach::Auto, &choice, tests),
            None => unknown(&name),
        },
        Action::Gen(generate) => generate::run(&generate),
        Action::Scenario(options) => scenario::run(&options),
        Action::Bench(bench) => bench::run(&bench),
        Action::AsUser(options) => user::run(&options),
        Action::Start(start) => start::run(&start),
        Action::Probe { name } => tests::probe(&name).unwrap_or_else(|| unknown(&name)),
    }
}

fn unknown(name: &str) -> ExitCode {
    eprintln!("guest: nothing is called {name:?}");
    ExitCode::FAILURE
}

fn run(attach: Attach, choice: &Choice, mut tests: Vec<Test>) -> ExitCode {
    let attach = attach.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    println!("attach {attach}, seed {}", choice.seed);
    let context = match context::Context::new(attach, choice.seed, choice.quick) {
        Ok(context) => context,
        Err(error) => {
            println!("cannot start: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    tests.retain(|test| !choice.without.iter().any(|part| test.name.starts_with(part)));
    tests.retain(|test| choice.filter.as_ref().is_none_or(|part| test.name.contains(part)));
    watchdog::start();
    protocol::run_all(&tests, &context)
}
