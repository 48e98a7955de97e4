//! Scenarios for Q7: registrations that wait for `mmap_lock`, and the same without waits.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::json;

use super::{Options, work::Work};
use crate::{
    ring::{Buffer, Request},
    space::{Kind, Space},
    sys::{self, PAGE},
};

/// Size of the memory whose protection is changed. The kernel processes all its pages with `mmap_lock` taken for
/// writing.
const AREA: u64 = 64 << 20;
const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

pub fn contended(options: &Options, work: &mut Work) -> anyhow::Result<()> {
    registrations(options, work, true)
}

pub fn uncontended(options: &Options, work: &mut Work) -> anyhow::Result<()> {
    registrations(options, work, false)
}

fn registrations(options: &Options, work: &mut Work, contended: bool) -> anyhow::Result<()> {
    let (count, length) = (options.count.unwrap_or(50), options.pages.unwrap_or(64) * PAGE);
    let mut space = Space::new(AREA + count * length);
    let area = space.map(Kind::Anon, AREA)?;
    sys::touch(area, AREA);
    // Another protection keeps this a separate VMA while that of the area changes.
    let first = space.map(Kind::SharedAnon, count * length)?;
    work.survey()?;
    let ring = work.ring()?;
    let (stop, begun) = (AtomicBool::new(false), Barrier::new(2));
    let started = Instant::now();
    let (done, held) = thread::scope(|scope| {
        let writer = scope.spawn(|| take_lock_repeatedly(contended.then_some(area), &begun, &stop));
        begun.wait();
        let done = (0..count).try_for_each(|turn| {
            let buffers = [Buffer { address: first + turn * length, length }];
            work.ok(ring, Request::Register(&buffers))?;
            work.ok(ring, Request::Unregister)
        });
        stop.store(true, Ordering::Relaxed);
        (done, writer.join())
    });
    done?;
    let (calls, held) = held.map_err(|_| anyhow::anyhow!("the writer panicked"))?.context("mprotect")?;
    let (held, elapsed) = (held.as_nanos() as u64, started.elapsed().as_nanos() as u64);
    work.tell("mmap_lock_writer", json!({ "calls": calls, "in_calls_ns": held, "elapsed_ns": elapsed }));
    Ok(())
}

/// Takes the lock repeatedly, or sleeps. Returns the number of calls and their total time.
fn take_lock_repeatedly(area: Option<u64>, begun: &Barrier, stop: &AtomicBool) -> std::io::Result<(u64, Duration)> {
    let (mut calls, mut held) = (0, Duration::ZERO);
    begun.wait();
    while !stop.load(Ordering::Relaxed) {
        let Some(area) = area else {
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        for protection in [libc::PROT_READ, READ_WRITE] {
            let started = Instant::now();
            sys::protect(area, AREA, protection)?;
            held += started.elapsed();
            calls += 1;
        }
    }
    Ok((calls, held))
}
