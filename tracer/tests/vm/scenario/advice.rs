//! Scenarios for the advice of `report --explain`: each with the fault, and with the advice followed.

use std::{fs, thread, time::Duration};

use anyhow::{Context as _, ensure};

use super::{Options, memory::touched, work::Work};
use crate::{
    process,
    ring::{Buffer, Request},
    space::{Kind, Space},
    sys::{self, HUGE_PAGE, PAGE},
};

/// Pages in the 8 MiB of the scenarios that depend on page size.
const PAGES: u64 = 2048;
const NOBODY: u32 = 65534;

pub fn page_faults(options: &Options, work: &mut Work) -> anyhow::Result<()> {
    let extent = (options.count.unwrap_or(8), options.pages.unwrap_or(PAGES));
    if options.cured {
        return work.again(extent, "ok", Space::map_populated);
    }
    work.again(extent, "ok", |space, length| space.map(Kind::Anon, length))
}

pub fn small_pages(options: &Options, work: &mut Work) -> anyhow::Result<()> {
    let (count, pages) = (options.count.unwrap_or(8), options.pages.unwrap_or(PAGES));
    let expected = if options.cured { pages * PAGE } else { 0 };
    work.again((count, pages), "ok", |space, length| {
        let address = match (options.cured, options.transparent) {
            (false, _) => touched(space, length)?,
            (true, false) => space.map(Kind::Hugetlb, length)?,
            (true, true) => {
                let address = space.map(Kind::Anon, length)?;
                sys::advise(address, length, libc::MADV_HUGEPAGE)?;
                address
            }
        };
        sys::touch(address, length);
        let huge = huge_bytes(address, length)?;
        ensure!(huge == expected, "{huge} of {length} bytes are in huge pages according to /proc/self/smaps");
        Ok(address)
    })?;
    work.tell("huge_page_bytes", count * expected);
    Ok(())
}

/// Bytes of a range in huge pages of either kind.
fn huge_bytes(address: u64, length: u64) -> anyhow::Result<u64> {
    let mut inside = false;
    let mut bytes = 0;
    for line in fs::read_to_string("/proc/self/smaps")?.lines() {
        let mut words = line.split_whitespace();
        let (Some(first), second) = (words.next(), words.next()) else { continue };
        if let Some((start, _)) = first.split_once('-') {
            let start = u64::from_str_radix(start, 16).context("a line of smaps")?;
            inside = (address..address + length).contains(&start);
        } else if inside && ["AnonHugePages:", "Private_Hugetlb:", "Shared_Hugetlb:"].contains(&first) {
            bytes += second.context("a line of smaps")?.parse::<u64>()? << 10;
        }
    }
    Ok(bytes)
}

pub fn small_iovecs(options: &Options, work: &mut Work) -> anyhow::Result<()> {
    let (count, pages) = (options.count.unwrap_or(4), options.pages.unwrap_or(4096));
    let each = if options.cured { pages * PAGE } else { PAGE };
    let mut space = Space::new(pages * PAGE);
    let first = touched(&mut space, pages * PAGE)?;
    let buffers: Vec<Buffer> =
        (first..first + pages * PAGE).step_by(each as usize).map(|address| Buffer { address, length: each }).collect();
    work.survey()?;
    let ring = work.ring()?;
    for _ in 0..count {
        work.ok(ring, Request::Register(&buffers))?;
        work.ok(ring, Request::Unregister)?;
    }
    Ok(())
}

/// I/O is the same with and without the fault; only the registrations differ.
pub fn reregistration(options: &Options, work: &mut Work) -> anyhow::Result<()> {
    let mut space = Space::new(options.pages.unwrap_or(64) * PAGE);
    let length = options.pages.unwrap_or(64) * PAGE;
    let buffers = [Buffer { address: touched(&mut space, length)?, length }];
    work.survey()?;
    let ring = work.ring()?;
    for turn in 0..options.count.unwrap_or(100) {
        if turn == 0 || !options.cured {
            work.ok(ring, Request::Register(&buffers))?;
        }
        work.fixed(ring, &buffers, 4)?;
        if !options.cured {
            work.ok(ring, Request::Unregister)?;
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// The limit does not apply with `CAP_IPC_LOCK`, so the scenario continues as an unprivileged user.
pub fn memlock(options: &Options, work: &mut Work) -> anyhow::Result<()> {
    let limit = if options.cured { 32 * HUGE_PAGE } else { 16 * PAGE };
    process::lower_to(NOBODY, limit).context("becoming nobody, with another RLIMIT_MEMLOCK")?;
    work.tell("memlock_limit", limit);
    let extent = (options.count.unwrap_or(8), options.pages.unwrap_or(256));
    work.again(extent, if options.cured { "ok" } else { "ENOMEM" }, touched)
}
