//! `guest gen`: workloads that record their calls and the kernel's answers.

use std::{
    fs, io,
    path::PathBuf,
    process::ExitCode,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    call_counts::CallCounts,
    errno::result_name,
    ring::{Buffer, Request, Ring},
    space::{Kind, Space},
    sys::{self, PAGE},
};

/// What to generate, and where to write the account.
#[derive(Args)]
pub struct Generate {
    /// File for the account [default: standard output]
    #[arg(long, global = true)]
    out: Option<PathBuf>,
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Subcommand)]
enum Scenario {
    /// Threads that make random calls, about half of which are refused, move between CPUs, end, and are replaced
    Storm {
        #[arg(long, default_value_t = 4)]
        threads: u64,
        /// Total number of calls
        #[arg(long, default_value_t = 100_000)]
        count: u64,
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Many threads that pin untouched memory at the same moment
    Crowd {
        #[arg(long, default_value_t = 64)]
        threads: usize,
        /// Pages that each thread pins
        #[arg(long, default_value_t = 1024)]
        pages: u64,
    },
    /// Rings that are closed while they still have tables
    Abandon {
        #[arg(long, default_value_t = 100)]
        count: u64,
    },
    /// One registration of untouched memory, after printing the line `ready`
    Pin {
        #[arg(long, default_value_t = 256)]
        mib: u64,
    },
    /// Registers and unregisters a table for a while: single pages in a VMA each
    Steady {
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        #[arg(long, default_value_t = 8)]
        buffers: u64,
    },
}

/// Runs a scenario.
pub fn run(generate: &Generate) -> ExitCode {
    let result = call_counts(&generate.scenario).and_then(|counts| write(generate, &counts));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn call_counts(scenario: &Scenario) -> anyhow::Result<CallCounts> {
    match *scenario {
        Scenario::Storm { threads, count, seed } => storm(threads, count, seed),
        Scenario::Crowd { threads, pages } => crowd(threads, pages),
        Scenario::Abandon { count } => abandon(count),
        Scenario::Pin { mib } => pin(mib),
        Scenario::Steady { seconds, buffers } => steady(Duration::from_secs(seconds), buffers),
    }
}

fn write(generate: &Generate, counts: &CallCounts) -> anyhow::Result<()> {
    let account =
        json!({ "pid": std::process::id(), "calls": counts.all(), "failed": counts.failed(), "results": counts });
    if let Some(path) = &generate.out {
        return fs::write(path, account.to_string()).with_context(|| format!("writing {}", path.display()));
    }
    println!("{account}");
    Ok(())
}

/// Reads an account.
pub fn read(path: &str) -> anyhow::Result<CallCounts> {
    let text = fs::read_to_string(path).with_context(|| format!("the generator wrote no {path}"))?;
    let mut account: serde_json::Value = serde_json::from_str(&text)?;
    Ok(serde_json::from_value(account["results"].take())?)
}

/// Calls of a thread before another one replaces it.
const LIFE: u64 = 2_000;

fn storm(threads: u64, count: u64, seed: u64) -> anyhow::Result<CallCounts> {
    let each = |thread: u64| count / threads + u64::from(thread < count % threads);
    thread::scope(|scope| {
        let started: Vec<_> =
            (0..threads).map(|thread| scope.spawn(move || lives(each(thread), seed * 1000 + thread))).collect();
        gather(started)
    })
}

/// The calls of one thread slot, made by a sequence of threads.
fn lives(count: u64, seed: u64) -> anyhow::Result<CallCounts> {
    let mut counts = CallCounts::default();
    for life in 0..count.div_ceil(LIFE) {
        let calls = LIFE.min(count - life * LIFE);
        let one = thread::spawn(move || random_calls(calls, seed.wrapping_mul(0x9e37_79b9).wrapping_add(life)));
        counts.merge(&one.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??);
    }
    Ok(counts)
}

/// xorshift64*: the same seed yields the same calls.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

fn random_calls(count: u64, seed: u64) -> anyhow::Result<CallCounts> {
    let mut random = Random(seed | 1);
    let mut space = Space::new(16 * PAGE);
    let address = space.map_split(8)?;
    let hole = Buffer { address: space.hole(PAGE)?, length: PAGE };
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let ring = Ring::new()?;
    let mut counts = CallCounts::default();
    let mut registered = false;
    for call in 0..count {
        if call % 64 == 0 {
            // For a CPU that does not exist or is not allowed, the thread stays where it is.
            let _ = sys::move_to_cpu(random.below(cpus as u64) as usize);
        }
        let pages = 1 + random.below(8);
        let good =
            [Buffer { address, length: pages * PAGE }, Buffer { address: address + random.below(4096), length: 1 }];
        let request = choose(&mut random, registered, &good, std::slice::from_ref(&hole));
        let answer = ring.call(request);
        counts.add(request.operation(), &result_name(answer.ret), 1);
        registered = match (request, answer.ret) {
            (Request::Register(_) | Request::Register2(_), 0) => true,
            (Request::Unregister, 0) => false,
            _ => registered,
        };
    }
    // The ring is dropped as it is: about half the time, it still has a table.
    Ok(counts)
}

fn choose<'a>(random: &mut Random, registered: bool, good: &'a [Buffer], bad: &'a [Buffer]) -> Request<'a> {
    match (registered, random.below(8)) {
        (true, 0..=3) | (false, 7) => Request::Unregister,
        (true, 4) => Request::Update(0, &good[1..]),
        (true, 5) => Request::Update(0, bad),
        (true, _) | (false, 0..=1) => Request::Register(good),
        (false, 2) => Request::Register2(good),
        (false, 3..=4) => Request::Register(bad),
        (false, 5) => Request::Register2(bad),
        (false, _) => Request::Bare(15, 3),
    }
}

fn crowd(threads: usize, pages: u64) -> anyhow::Result<CallCounts> {
    let barrier = Barrier::new(threads);
    let one = || -> anyhow::Result<CallCounts> {
        let mut space = Space::new(pages * PAGE);
        let length = pages * PAGE;
        let address = space.map(Kind::Anon, length);
        let ring = Ring::new();
        // Threads wait here even after a failure, because the others wait for them.
        barrier.wait();
        let (address, ring) = (address?, ring?);
        sys::advise(address, length, libc::MADV_NOHUGEPAGE)?;
        let mut counts = CallCounts::default();
        let answer = ring.call(Request::Register(&[Buffer { address, length }]));
        counts.add("register", &result_name(answer.ret), 1);
        Ok(counts)
    };
    thread::scope(|scope| gather((0..threads).map(|_| scope.spawn(one)).collect()))
}

fn gather(threads: Vec<thread::ScopedJoinHandle<'_, anyhow::Result<CallCounts>>>) -> anyhow::Result<CallCounts> {
    let mut counts = CallCounts::default();
    for thread in threads {
        counts.merge(&thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??);
    }
    Ok(counts)
}

fn abandon(count: u64) -> anyhow::Result<CallCounts> {
    let mut space = Space::new(16 * PAGE);
    let buffers = [Buffer { address: space.map_split(8)?, length: 8 * PAGE }];
    let mut counts = CallCounts::default();
    for _ in 0..count {
        let answer = Ring::new()?.call(Request::Register(&buffers));
        counts.add("register", &result_name(answer.ret), 1);
    }
    Ok(counts)
}

fn pin(mib: u64) -> anyhow::Result<CallCounts> {
    let length = mib << 20;
    let mut space = Space::new(length);
    let address = space.map(Kind::Anon, length)?;
    sys::advise(address, length, libc::MADV_NOHUGEPAGE)?;
    let ring = Ring::new()?;
    println!("ready");
    io::Write::flush(&mut io::stdout())?;
    let answer = ring.call(Request::Register(&[Buffer { address, length }]));
    let mut counts = CallCounts::default();
    counts.add("register", &result_name(answer.ret), 1);
    Ok(counts)
}

fn steady(time: Duration, buffers: u64) -> anyhow::Result<CallCounts> {
    let mut space = Space::new(buffers * PAGE);
    let address = space.map_split(buffers)?;
    let table: Vec<Buffer> = (0..buffers).map(|page| Buffer { address: address + page * PAGE, length: PAGE }).collect();
    let ring = Ring::new()?;
    let mut counts = CallCounts::default();
    let deadline = Instant::now() + time;
    while Instant::now() < deadline {
        for request in [Request::Register(&table), Request::Unregister] {
            counts.add(request.operation(), &result_name(ring.call(request).ret), 1);
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(counts)
}
