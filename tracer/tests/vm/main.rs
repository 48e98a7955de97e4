//! What runs inside a guest: makes registrations over known mappings, and holds what pinscope says of them
//! against what the kernel, /proc/self/maps and our own clock say.
#![expect(clippy::unwrap_used, reason = "a panic in a test is caught, and is that test's failure")]
#![allow(dead_code, reason = "the families that use the rest follow")]

mod attempt;
mod clock;
mod compare;
mod context;
mod errno;
mod filesystem;
mod kernel;
mod maps;
mod pinscope;
mod protocol;
mod record;
mod ring;
mod space;
mod sys;
mod tests;
mod trace;
mod watchdog;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

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
        /// Seed of all that is random.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Fewer cases.
        #[arg(long)]
        quick: bool,
        /// Part of a name.
        filter: Option<String>,
    },
    /// Lists the tests.
    List,
    /// A check that wants a machine, or a process, of its own.
    Circumstance { name: String },
}

#[derive(Clone, Copy, ValueEnum)]
enum Attach {
    Kprobe,
    Fentry,
    Auto,
    None,
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Action::Test { attach, seed, quick, filter } => test(attach, seed, quick, filter.as_deref()),
        Action::List => {
            for test in tests::all() {
                println!("{}", test.name);
            }
            ExitCode::SUCCESS
        }
        Action::Circumstance { name } => tests::circumstance(&name),
    }
}

fn test(attach: Attach, seed: u64, quick: bool, filter: Option<&str>) -> ExitCode {
    let attach = attach.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    println!("guest: attach {attach}, seed {seed}");
    let context = match context::Context::new(attach, seed, quick) {
        Ok(context) => context,
        Err(error) => {
            println!("guest: cannot start: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let mut tests = tests::all();
    tests.retain(|test| filter.is_none_or(|part| test.name.contains(part)));
    watchdog::start();
    protocol::run_all(&tests, &context)
}
