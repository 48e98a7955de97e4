//! `guest bench`: measures single operations. Under QEMU's -icount, a nanosecond is an instruction.

use std::{
    fs::{self, OpenOptions},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    process::ExitCode,
};

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use io_uring::{IoUring, opcode, types};
use serde_json::json;

use crate::{
    clock,
    ring::{Buffer, Request, Ring},
    space::{Kind, Space},
    sys::{self, PAGE},
};

/// File for O_DIRECT reads.
const FILE: &str = "/mnt/ext4/guest-bench";
/// Pages that the fault case touches before it maps new ones.
const FAULT_PAGES: u64 = 1024;

/// What to measure, and how often.
#[derive(Args)]
pub struct Bench {
    #[arg(long)]
    case: Case,
    /// Warm-up operations, which are not counted
    #[arg(long, default_value_t = 4000)]
    warmup: usize,
    /// Operations that are counted
    #[arg(long, default_value_t = 4000)]
    n: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Case {
    /// Register 1 page in 1 VMA
    Pages1,
    /// Register 256 pages in 1 VMA
    Pages256,
    /// Register 64 pages in 64 VMAs
    Vmas64,
    /// Register 1,024 buffers of one page each
    Iovecs1024,
    /// Touch a page for the first time
    Fault,
    /// Submit an O_DIRECT read of 4 KiB, which pins the page. (Completion is not measured: it waits for an emulated
    /// disk)
    Odirect,
}

/// Runs the benchmark and prints one line of JSON.
pub fn run(bench: &Bench) -> ExitCode {
    match measure(bench) {
        Ok(mut times) => {
            times.sort_unstable();
            let at = |percent: usize| times[(times.len() - 1) * percent / 100];
            let case = bench.case.to_possible_value().map(|value| value.get_name().to_owned());
            let (n, min) = (times.len(), times[0]);
            println!("{}", json!({ "case": case, "n": n, "min": min, "p10": at(10), "median": at(50), "p90": at(90) }));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("guest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(bench: &Bench) -> anyhow::Result<Vec<u64>> {
    ensure!(bench.n > 0, "--n must be above 0");
    let page = |address| Buffer { address, length: PAGE };
    let mut space = Space::new(1024 * PAGE);
    match bench.case {
        Case::Pages1 => registrations(bench, &[page(touched(&mut space, 1)?)]),
        Case::Pages256 => registrations(bench, &[Buffer { address: touched(&mut space, 256)?, length: 256 * PAGE }]),
        Case::Vmas64 => {
            let address = space.map_split(64)?;
            sys::touch(address, 64 * PAGE);
            registrations(bench, &[Buffer { address, length: 64 * PAGE }])
        }
        Case::Iovecs1024 => {
            let address = touched(&mut space, 1024)?;
            let table: Vec<Buffer> = (0..1024).map(|place| page(address + place * PAGE)).collect();
            registrations(bench, &table)
        }
        Case::Fault => faults(bench),
        Case::Odirect => direct_reads(bench, touched(&mut space, 1)?),
    }
}

fn touched(space: &mut Space, pages: u64) -> anyhow::Result<u64> {
    let address = space.map(Kind::Anon, pages * PAGE)?;
    sys::advise(address, pages * PAGE, libc::MADV_NOHUGEPAGE)?;
    sys::touch(address, pages * PAGE);
    Ok(address)
}

/// Repeats an operation and returns its times.
fn repeat(bench: &Bench, mut operation: impl FnMut() -> anyhow::Result<u64>) -> anyhow::Result<Vec<u64>> {
    for _ in 0..bench.warmup {
        operation()?;
    }
    (0..bench.n).map(|_| operation()).collect()
}

fn registrations(bench: &Bench, table: &[Buffer]) -> anyhow::Result<Vec<u64>> {
    let ring = Ring::new()?;
    repeat(bench, || {
        let answer = ring.call_timed_by(libc::CLOCK_MONOTONIC_RAW, Request::Register(table));
        ensure!(answer.ret == 0, "the registration was answered {}", answer.ret);
        let back = ring.call(Request::Unregister);
        ensure!(back.ret == 0, "the unregistration was answered {}", back.ret);
        Ok(answer.ended_ns - answer.started_ns)
    })
}

fn faults(bench: &Bench) -> anyhow::Result<Vec<u64>> {
    let mut space = None;
    let mut next = 0;
    repeat(bench, || {
        if next % FAULT_PAGES == 0 {
            let mut fresh = Space::new(FAULT_PAGES * PAGE);
            let address = fresh.map(Kind::Anon, FAULT_PAGES * PAGE)?;
            sys::advise(address, FAULT_PAGES * PAGE, libc::MADV_NOHUGEPAGE)?;
            space = Some(fresh);
            next = 0;
        }
        let address = space.as_ref().context("no space")?.start() + next * PAGE;
        next += 1;
        let started = clock::now(libc::CLOCK_MONOTONIC_RAW);
        sys::touch(address, PAGE);
        Ok(clock::now(libc::CLOCK_MONOTONIC_RAW) - started)
    })
}

fn direct_reads(bench: &Bench, address: u64) -> anyhow::Result<Vec<u64>> {
    fs::write(FILE, vec![1; PAGE as usize]).with_context(|| format!("writing {FILE}"))?;
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(FILE)?;
    file.sync_all()?;
    let mut ring = IoUring::new(8)?;
    let read = opcode::Read::new(types::Fd(file.as_raw_fd()), address as *mut u8, PAGE as u32).build();
    let times = repeat(bench, || {
        // SAFETY: the page was mapped for this read, no Rust object lies in it, and it stays mapped until the read ends
        // below.
        unsafe { ring.submission().push(&read) }.context("the ring is full")?;
        let started = clock::now(libc::CLOCK_MONOTONIC_RAW);
        ring.submit()?;
        let ended = clock::now(libc::CLOCK_MONOTONIC_RAW);
        ring.submit_and_wait(1)?;
        let result = ring.completion().next().context("no completion")?.result();
        ensure!(result == PAGE as i32, "reading {FILE} was answered {result}");
        Ok(ended - started)
    });
    fs::remove_file(FILE)?;
    times
}
