//! Scenarios for Q1: registrations at set-up and at run time.

use std::{
    io::{self, Write as _},
    thread,
    time::{Duration, Instant},
};

use super::{Options, work::Work};
use crate::{
    kernel::Version,
    ring::{Buffer, EMPTY, Request},
    space::{Kind, Space},
    sys::PAGE,
};

/// Buffers of a table.
const BUFFERS: u64 = 16;
/// Number of rings, in scenarios with many.
const RINGS: u64 = 64;
const CLONES: u64 = 8;
/// Slots of a table that is filled one slot at a time.
const SLOTS: u64 = 64;
/// Pause between two changes of a table.
const PAUSE: Duration = Duration::from_millis(10);

/// A table of buffers with `pages` each, in memory of one kind.
fn table(space: &mut Space, pages: u64) -> anyhow::Result<Vec<Buffer>> {
    let length = pages * PAGE;
    let address = space.map(Kind::Anon, BUFFERS * length)?;
    Ok((0..BUFFERS).map(|index| Buffer { address: address + index * length, length }).collect())
}

fn pages(options: &Options) -> u64 {
    options.pages.unwrap_or(4)
}

pub fn setup_only(options: &Options, work: &mut Work) -> anyhow::Result<()> {
    let mut space = Space::new(BUFFERS * pages(options) * PAGE);
    let buffers = table(&mut space, pages(options))?;
    work.survey()?;
    let ring = work.ring()?;
    work.ok(ring, Request::Register(&buffers))?;
    let deadline = Instant::now() + Duration::from_secs(options.seconds.unwrap_or(2));
    while Instant::now() < deadline {
        work.fixed(ring, &buffers, 2 * BUFFERS)?;
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

pub fn switch_sets(options: &Options, work: &mut Work) -> anyhow::Result<()> {
    let mut space = Space::new(2 * BUFFERS * pages(options) * PAGE);
    let sets = [table(&mut space, pages(options))?, table(&mut space, pages(options))?];
    work.survey()?;
    let ring = work.ring()?;
    work.ok(ring, Request::Register(&sets[0]))?;
    work.fixed(ring, &sets[0], BUFFERS)?;
    for switch in 1..=options.count.unwrap_or(60) as usize {
        thread::sleep(PAUSE);
        let set = &sets[switch % 2];
        work.ok(ring, Request::Unregister)?;
        work.ok(ring, Request::Register(set))?;
        work.fixed(ring, set, BUFFERS)?;
    }
    Ok(())
}

pub fn update_slots(options: &Options, work: &mut Work) -> anyhow::Result<()> {
    let mut space = Space::new(BUFFERS * pages(options) * PAGE);
    let buffers = table(&mut space, pages(options))?;
    work.survey()?;
    let ring = work.ring()?;
    empty_table(work, ring, BUFFERS)?;
    for update in 0..options.count.unwrap_or(60) {
        let slot = (update % BUFFERS) as usize;
        work.ok(ring, Request::Update(slot as u32, &buffers[slot..=slot]))?;
        // The slots filled so far.
        work.fixed(ring, &buffers[..=slot.min(update as usize)], 4)?;
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// Registers a table of empty slots.
fn empty_table(work: &mut Work, ring: usize, slots: u64) -> anyhow::Result<()> {
    if work.kernel.version >= Version(5, 19) {
        return work.ok(ring, Request::Sparse(slots as u32));
    }
    work.ok(ring, Request::Register2(&vec![EMPTY; slots as usize]))
}

pub fn fills_slots(options: &Options, work: &mut Work) -> anyhow::Result<()> {
    let slots = options.count.unwrap_or(SLOTS);
    let length = pages(options) * PAGE;
    let mut space = Space::new(slots * length);
    let address = space.map(Kind::Anon, slots * length)?;
    work.survey()?;
    let ring = work.ring()?;
    empty_table(work, ring, slots)?;
    work.nops(ring, 1)?;
    for slot in 0..slots {
        work.ok(ring, Request::Update(slot as u32, &[Buffer { address: address + slot * length, length }]))?;
    }
    Ok(())
}

pub fn refills_slots(options: &Options, work: &mut Work) -> anyhow::Result<()> {
    let mut space = Space::new(BUFFERS * pages(options) * PAGE);
    let buffers = table(&mut space, pages(options))?;
    work.survey()?;
    let ring = work.ring()?;
    work.ok(ring, Request::Register2(&buffers))?;
    for turn in 0..options.count.unwrap_or(60) {
        let slot = (turn % BUFFERS) as usize;
        work.nops(ring, 1)?;
        work.ok(ring, Request::Update(slot as u32, &[EMPTY]))?;
        work.ok(ring, Request::Update(slot as u32, &buffers[slot..=slot]))?;
        thread::sleep(PAUSE);
    }
    Ok(())
}

pub fn empties_slots(options: &Options, work: &mut Work) -> anyhow::Result<()> {
    let mut space = Space::new(BUFFERS * pages(options) * PAGE);
    let buffers = table(&mut space, pages(options))?;
    work.survey()?;
    let ring = work.ring()?;
    work.ok(ring, Request::Register2(&buffers))?;
    for turn in 0..options.count.unwrap_or(BUFFERS) {
        work.nops(ring, 1)?;
        work.ok(ring, Request::Update((turn % BUFFERS) as u32, &[EMPTY]))?;
    }
    Ok(())
}

pub fn many_rings(options: &Options, work: &mut Work) -> anyhow::Result<()> {
    let mut space = Space::new(BUFFERS * pages(options) * PAGE);
    let buffers = table(&mut space, pages(options))?;
    work.survey()?;
    let mut first = None;
    for _ in 0..options.count.unwrap_or(RINGS) {
        let ring = work.ring()?;
        match first.filter(|_| options.cured) {
            Some(first) => work.ok(ring, Request::Clone(work.fd(first)))?,
            None => work.ok(ring, Request::Register(&buffers))?,
        }
        first = first.or(Some(ring));
        work.fixed(ring, &buffers, 4)?;
    }
    Ok(())
}

pub fn pre_existing(options: &Options, work: &mut Work) -> anyhow::Result<()> {
    let mut space = Space::new(BUFFERS * pages(options) * PAGE);
    let buffers = table(&mut space, pages(options))?;
    work.survey()?;
    let ring = work.ring()?;
    work.nops(ring, 32)?;
    println!("ready");
    io::stdout().flush()?;
    io::stdin().read_line(&mut String::new())?;
    work.ok(ring, Request::Register(&buffers))?;
    work.fixed(ring, &buffers, 32)
}

pub fn clones(options: &Options, work: &mut Work) -> anyhow::Result<()> {
    let mut space = Space::new(BUFFERS * pages(options) * PAGE);
    let buffers = table(&mut space, pages(options))?;
    work.survey()?;
    let source = work.ring()?;
    work.ok(source, Request::Register(&buffers))?;
    let answer = if work.kernel.version >= Version(6, 12) { "ok" } else { "EINVAL" };
    for _ in 0..options.count.unwrap_or(CLONES) {
        let ring = work.ring()?;
        work.expect(ring, Request::Clone(work.fd(source)), answer)?;
        if answer == "ok" {
            work.fixed(ring, &buffers, 4)?;
        }
    }
    Ok(())
}

pub fn idle(options: &Options, work: &mut Work) -> anyhow::Result<()> {
    let ring = work.ring()?;
    work.nops(ring, options.count.unwrap_or(64))
}
