//! `cargo xtask`: tasks beyond plain cargo, namely machine setup, the main job, and tests on real kernels.

mod apt;
mod artifacts;
mod bench;
mod build_cache;
mod cache;
mod dashboards;
mod dist;
mod doctor;
mod documents;
mod exec;
mod fuzz;
mod guest;
mod kernels;
mod kubernetes;
mod liburing;
mod receiver;
#[cfg(test)]
mod rooms;
mod run;
mod setup;
mod systemd_units;
mod test;
mod test_results;
mod toolchain;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Sets up, runs and tests pinscope")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing to build pinscope and to run guests
    Setup,
    /// List what is installed and what is missing
    Doctor,
    /// List the kernels of the matrix: the newest release of each series, its package, and whether it is cached
    Kernels(kernels::Options),
    /// Do the main job: pinscope around a real workload, here or in a guest
    Run(run::Options),
    /// Check formatting, lints, unit and doc tests, and every kernel of the matrix
    Test(test::Options),
    Bench(bench::Options),
    Dashboards(dashboards::Options),
    Fuzz(fuzz::Options),
    /// Make a Debian package and a tarball, into target/dist
    Dist,
    /// Run your own script in a guest
    Guest(guest::Options),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Setup => setup::setup(),
        Task::Doctor => doctor::doctor(),
        Task::Kernels(options) => kernels::kernels(&options),
        Task::Run(options) => run::run(&options),
        Task::Test(options) => test::test(&options),
        Task::Bench(options) => bench::bench(&options),
        Task::Fuzz(options) => fuzz::fuzz(&options).map(|()| ExitCode::SUCCESS),
        Task::Dashboards(options) => dashboards::dashboards(&options),
        Task::Dist => dist::dist(),
        Task::Guest(options) => guest::guest(&options),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
