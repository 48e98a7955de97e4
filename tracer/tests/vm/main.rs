//! What runs inside a guest: makes registrations over known mappings, and holds what pinscope says of them
//! against what the kernel, /proc/self/maps and our own clock say.
#![expect(clippy::unwrap_used, reason = "a panic in a test is caught, and is that test's failure")]

mod attempt;
mod bench;
mod cgroup;
mod clock;
mod compare;
mod context;
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
mod tally;
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
    /// Runs the tests whose name contains FILTER.
    Test {
        /// How pinscope is to attach; `none` asks only the kernel.
        #[arg(long)]
        attach: Attach,
        #[command(flatten)]
        choice: Choice,
    },
    /// Lists the tests.
    List,
    /// Tests for a guest that was booted in a special way: `lockdown`; `debian` and `prometheus` in a Debian.
    Circumstance {
        name: String,
        #[command(flatten)]
        choice: Choice,
    },
    /// A workload of its own; prints what it did and what the kernel answered, as JSON.
    Gen(generate::Generate),
    /// A workload whose right answer is known beforehand; prints what it did, as one line of JSON.
    Scenario(scenario::Options),
    /// Times one operation; prints one line of JSON.
    Bench(bench::Bench),
    /// Runs a program as an ordinary user with a few capabilities.
    AsUser(user::Options),
    /// Times the start of a program; prints one line of JSON.
    Start(start::Start),
    /// What a test starts in a process of its own.
    #[command(hide = true)]
    Probe { name: String },
}

/// Which tests, and how much of them.
#[derive(Args)]
struct Choice {
    /// Seed of all that is random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Fewer cases.
    #[arg(long)]
    quick: bool,
    /// Leave out the tests whose name begins with this (can be repeated).
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
