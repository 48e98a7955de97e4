//! `guest scenario`: workloads whose correct answers are known, each with an account of its calls.

mod account;
mod advice;
mod churn;
mod hang;
mod lock;
mod memory;
mod table;
mod work;

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Args;

pub use self::account::{Account, Call};
use self::work::Work;
use crate::sys;

/// Selection and size of a scenario.
#[derive(Args)]
pub struct Options {
    /// File for the account [default: last line of standard output]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Run time of a server
    #[arg(long)]
    seconds: Option<u64>,
    /// Number of repetitions
    #[arg(long)]
    count: Option<u64>,
    /// Pages of a buffer
    #[arg(long)]
    pages: Option<u64>,
    /// Number of VMAs in a buffer
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=4096))]
    vmas: Option<u64>,
    /// Run without the fault that the scenario demonstrates
    #[arg(long)]
    cured: bool,
    /// Use transparent huge pages as the cure
    #[arg(long)]
    transparent: bool,
    /// For many_vmas: let the pin fault the pages in
    #[arg(long)]
    untouched: bool,
    /// Name of the scenario [default: list all]
    name: Option<String>,
}

/// A workload: a description for the list, and the function that runs it.
pub struct Scenario {
    /// Name on the command line.
    pub name: &'static str,
    about: &'static str,
    run: fn(&Options, &mut Work) -> anyhow::Result<()>,
}

const fn scenario(
    name: &'static str,
    about: &'static str,
    run: fn(&Options, &mut Work) -> anyhow::Result<()>,
) -> Scenario {
    Scenario { name, about, run }
}

/// All scenarios.
pub const SCENARIOS: [Scenario; 28] = [
    scenario("setup_only", "a server: one registration of 16 buffers, then reads and writes", churn::setup_only),
    scenario("switch_sets", "changes between two sets of buffers at run time, I/O in between", churn::switch_sets),
    scenario("update_slots", "an empty table whose slots are filled one at a time", churn::update_slots),
    scenario(
        "fills_slots",
        "an empty table at work, each of whose 64 slots is filled once, at once",
        churn::fills_slots,
    ),
    scenario("refills_slots", "a slot that is emptied and filled again at run time", churn::refills_slots),
    scenario("empties_slots", "the table of a server, whose slots are emptied one at a time", churn::empties_slots),
    scenario(
        "many_rings",
        "64 rings, a registration of one set on each; cured: clones of the first",
        churn::many_rings,
    ),
    scenario(
        "pre_existing",
        "a ring with I/O behind it; registers after a line on standard input",
        churn::pre_existing,
    ),
    scenario("clones", "a table cloned to 8 other rings (6.12)", churn::clones),
    scenario("prefaulted", "buffers whose pages are there", memory::prefaulted),
    scenario("untouched", "the same, whose pages are not", memory::untouched),
    scenario("many_vmas", "buffers over --vmas VMAs; cured: over one", memory::many_vmas),
    scenario("private_file", "a private mapping of a file on ext4", memory::private_file),
    scenario("shared_file", "a shared mapping of a file on ext4; cured: anonymous memory", memory::shared_file),
    scenario("anon_next_to_memfd", "anonymous memory and a memfd in one buffer", memory::anon_next_to_memfd),
    scenario("two_memfds", "two memfds in one buffer", memory::two_memfds),
    scenario("dev_zero_private", "a private mapping of /dev/zero", memory::dev_zero_private),
    scenario("ramfs_shared", "a shared mapping of a file on ramfs", memory::ramfs_shared),
    scenario("contended_mmap_lock", "untouched buffers while another thread writes under mmap_lock", lock::contended),
    scenario("uncontended", "the same while that thread sleeps", lock::uncontended),
    scenario("page_faults", "8 MiB faulted in by the pin; cured: MAP_POPULATE", advice::page_faults),
    scenario("small_pages", "8 MiB in pages of 4 KiB; cured: huge pages", advice::small_pages),
    scenario("small_iovecs", "4,096 adjacent buffers of a page; cured: one of 16 MiB", advice::small_iovecs),
    scenario("reregistration", "one range registered 100 times; cured: once", advice::reregistration),
    scenario("memlock", "nobody's registrations beyond RLIMIT_MEMLOCK; cured: a higher limit", advice::memlock),
    scenario(
        "held_ring",
        "a register waits in its pin, and an unregister for the ring's lock, for --seconds (6.5)",
        hang::held_ring,
    ),
    scenario("pending_read", "an unregister waits for a read, for --seconds (to 6.12)", hang::pending_read),
    scenario("idle", "a ring with I/O and no registration", churn::idle),
];

/// Runs a scenario and writes its account, or lists all scenarios.
pub fn run(options: &Options) -> ExitCode {
    let Some(name) = &options.name else {
        for scenario in &SCENARIOS {
            println!("{:<20} {}", scenario.name, scenario.about);
        }
        return ExitCode::SUCCESS;
    };
    let Some(scenario) = SCENARIOS.iter().find(|scenario| scenario.name == name) else {
        eprintln!("guest: unknown scenario {name:?}; `guest scenario` lists all");
        return ExitCode::FAILURE;
    };
    match perform(scenario, options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guest: {name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(scenario: &Scenario, options: &Options) -> anyhow::Result<()> {
    // Page sizes must be those of the scenario, independent of the machine's default.
    sys::transparent_huge_pages(options.transparent).context("prctl(PR_SET_THP_DISABLE)")?;
    let mut work = Work::new()?;
    (scenario.run)(options, &mut work)?;
    let account = serde_json::to_string(&work.account(scenario.name, options.cured))?;
    if let Some(path) = &options.out {
        return fs::write(path, account).with_context(|| format!("writing {}", path.display()));
    }
    println!("{account}");
    Ok(())
}
