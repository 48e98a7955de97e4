//! VMAs of a buffer, compared with /proc/self/maps just before the call.

use std::{fs, time::Duration};

use anyhow::ensure;

use super::{check_records, ready};
use crate::{
    attempt::{Attempt, perform},
    context::Context,
    maps,
    protocol::{Test, TestResult, Verdict},
    ring::{Buffer, EMPTY, Request, Ring},
    space::{Kind, Space},
    sys::{self, HUGE_PAGE, PAGE},
};

/// Maximum number of mappings of a process, 65,530 by default.
const MAX_MAP_COUNT: &str = "/proc/sys/vm/max_map_count";

pub fn tests() -> Vec<Test> {
    let mut tests: Vec<Test> = [1, 2, 3, 64, 4096, 65_000]
        .into_iter()
        .map(|count| Test::new(format!("vmas_{count}"), move |context| split(context, count)))
        .map(|test| test.within(Duration::from_mins(3)))
        .collect();
    tests.extend([
        Test::new("vmas_at_the_kernels_limit", at_the_limit).within(Duration::from_mins(3)),
        Test::new("vmas_begin_and_end_inside", inside),
        Test::new("vmas_one_byte", one_byte),
        Test::new("vmas_last_byte_decides", last_byte),
        Test::new("vmas_of_the_vdso", kernels_own),
        Test::new("vmas_hole_after_many", hole_after_many),
        Test::new("vmas_many_files", many_files),
        Test::new("vmas_many_backings", many_backings),
        Test::new("vmas_overlapping_buffers", overlapping),
        Test::new("vmas_shared_by_buffers_count_once", of_a_list),
        Test::new("vmas_huge_and_small", huge_and_small),
        Test::new("vmas_1024_iovecs", |context| iovecs(context, 1024, None)),
        Test::new("vmas_16384_iovecs", |context| iovecs(context, 16_384, None)).within(Duration::from_mins(3)),
        Test::new("vmas_refused_at_700_of_1024", |context| iovecs(context, 1024, Some(700))),
    ]);
    tests
}

/// Registers, unregisters on success, and compares both with the records.
fn check(context: &Context, buffers: &[Buffer], failed_at: Option<usize>) -> anyhow::Result<Attempt> {
    ready(context)?;
    let ring = Ring::new()?;
    let attempt = perform(context, &ring, Request::Register(buffers))?;
    let answer = attempt.answer;
    ensure!((answer.ret < 0) == failed_at.is_some(), "the kernel answered {}, not as laid out", answer.ret);
    let mut attempts = vec![(attempt.clone(), failed_at)];
    if answer.ret >= 0 {
        attempts.push((perform(context, &ring, Request::Unregister)?, None));
    }
    check_records(context, &attempts)?;
    Ok(attempt)
}

fn split(context: &Context, count: u64) -> TestResult {
    let mut space = Space::new(count * PAGE);
    let address = space.map_split(count)?;
    let attempt = check(context, &[Buffer { address, length: count * PAGE }], None)?;
    let vmas = attempt.buffers[0].1.vmas;
    ensure!(vmas == count, "the layout has {vmas} VMAs instead of {count}");
    Ok(Verdict::Passed)
}

/// As many mappings as the kernel allows for a process, all in one buffer except for the program's own.
fn at_the_limit(context: &Context) -> TestResult {
    let limit: u64 = fs::read_to_string(MAX_MAP_COUNT)?.trim().parse()?;
    if limit > 70_000 {
        return Ok(Verdict::Ignored(format!("{MAX_MAP_COUNT} is {limit}: more pages than this test pins")));
    }
    ready(context)?;
    let pages = limit;
    let mut space = Space::new(pages * PAGE);
    let address = space.map(Kind::Anon, pages * PAGE)?;
    // Two more each time. A few are left for the allocator.
    let room = limit - maps::read()?.len() as u64 - 24;
    for page in (1..room).step_by(2) {
        sys::advise(address + page * PAGE, PAGE, libc::MADV_DONTFORK)?;
    }
    let attempt = check(context, &[Buffer { address, length: pages * PAGE }], None)?;
    let vmas = attempt.buffers[0].1.vmas;
    ensure!(vmas + 300 > limit, "only {vmas} VMAs of {limit}");
    Ok(Verdict::Passed)
}

fn inside(context: &Context) -> TestResult {
    let mut space = Space::new(64 * PAGE);
    let address = space.map_split(8)?;
    let buffers = [
        Buffer { address: address + 100, length: 3 * PAGE },
        Buffer { address: address + PAGE - 1, length: 2 },
        Buffer { address: address + 2 * PAGE, length: PAGE },
        Buffer { address: address + 5 * PAGE + 4095, length: 2 * PAGE + 1 },
    ];
    let attempt = check(context, &buffers, None)?;
    let vmas: Vec<u64> = attempt.buffers.iter().map(|(_, layout)| layout.vmas).collect();
    ensure!(vmas == [4, 2, 1, 3], "the layout has {vmas:?} VMAs");
    Ok(Verdict::Passed)
}

fn one_byte(context: &Context) -> TestResult {
    let mut space = Space::new(4 * PAGE);
    let address = space.map(Kind::Memfd, 2 * PAGE)?;
    for offset in [0, 1, 4095, 4096] {
        check(context, &[Buffer { address: address + offset, length: 1 }], None)?;
    }
    Ok(Verdict::Passed)
}

/// A range that ends exactly with a VMA does not touch the next one; one byte more does.
fn last_byte(context: &Context) -> TestResult {
    let mut space = Space::new(8 * PAGE);
    let address = space.map_split(2)?;
    for (length, vmas) in [(PAGE, 1), (PAGE + 1, 2), (2 * PAGE - 1, 2), (2 * PAGE, 2)] {
        let attempt = check(context, &[Buffer { address, length }], None)?;
        ensure!(attempt.buffers[0].1.vmas == vmas, "{length} bytes are not in {vmas} VMAs");
    }
    Ok(Verdict::Passed)
}

fn hole_after_many(context: &Context) -> TestResult {
    let mut space = Space::new(256 * PAGE);
    let address = space.map_split(100)?;
    space.hole(PAGE)?;
    space.map_split(50)?;
    let attempt = check(context, &[Buffer { address, length: 151 * PAGE }], Some(0))?;
    let layout = &attempt.buffers[0].1;
    ensure!(layout.hole && layout.vmas == 100, "the layout has {} VMAs", layout.vmas);
    Ok(Verdict::Passed)
}

/// Distinct files up to the limit of a record, and beyond, which the record must flag.
fn many_files(context: &Context) -> TestResult {
    for count in [2, 15, 16, 17, 40] {
        let mut space = Space::new(64 * PAGE);
        let address = space.end();
        for _ in 0..count {
            space.map(Kind::Memfd, PAGE)?;
        }
        let refused = context.kernel.refuses_files().then_some(0);
        check(context, &[Buffer { address, length: count * PAGE }], refused)?;
    }
    Ok(Verdict::Passed)
}

/// More backings in one buffer than a record distinguishes.
fn many_backings(context: &Context) -> TestResult {
    let kinds =
        [Kind::Anon, Kind::SharedAnon, Kind::MemfdPrivate, Kind::Ext4Private, Kind::RamfsPrivate, Kind::ZeroPrivate];
    let mut space = Space::new(256 * PAGE);
    let address = space.end();
    for round in 0..3 {
        for kind in kinds {
            space.map(kind, (round + 1) * PAGE)?;
        }
    }
    for kind in [Kind::ReadOnly, Kind::NoAccess, Kind::Ext4, Kind::Ramfs] {
        space.map(kind, PAGE)?;
    }
    check(context, &[Buffer { address, length: space.length() }], Some(0))?;
    Ok(Verdict::Passed)
}

fn overlapping(context: &Context) -> TestResult {
    let mut space = Space::new(64 * PAGE);
    let address = space.map_split(16)?;
    let buffers: Vec<Buffer> =
        (0..16).map(|place| Buffer { address: address + place * 1000, length: (place + 1) * 3000 }).collect();
    check(context, &buffers, None)?;
    // All four over the same two; overlapping windows in descending order; entries of a table in no order.
    let over = |start: u64, pages: u64| Buffer { address: address + start * PAGE, length: pages * PAGE };
    let lists: [(&[Buffer], bool); 4] = [
        (&[over(0, 2), over(0, 2), over(0, 2), over(0, 2)], true),
        (&[over(4, 4), over(5, 2), over(4, 1), over(7, 3), over(2, 3)], true),
        (&[over(12, 1), over(8, 1), over(4, 1), over(0, 1)], true),
        (&[over(0, 1), over(8, 1), over(4, 1), over(0, 1)], false),
    ];
    for (list, exact) in lists {
        let attempt = check(context, list, None)?;
        let truth = distinct(list)?;
        if context.traces() && context.kernel.can_be_walked() {
            let seen = context.session()?.records_of(&[attempt])?.remove(0);
            let right = if exact { seen.vmas == Some(truth) } else { seen.vmas >= Some(truth) };
            ensure!(right && seen.vmas_repeated != exact, "{:?} VMAs, expected {truth}: {list:?}", seen.vmas);
        }
    }
    Ok(Verdict::Passed)
}

/// Adjacent buffers: a registration touches a VMA once, however many of its buffers lie in it.
fn of_a_list(context: &Context) -> TestResult {
    let mut space = Space::new(64 * PAGE);
    let address = space.map_split_by(8, 4)?;
    let half = PAGE / 2;
    for (buffers, length, vmas) in [(16, PAGE / 4, 1), (16, half, 2), (64, half, 8), (31, PAGE + 8, 8)] {
        let list: Vec<Buffer> =
            (0..buffers).map(|place| Buffer { address: address + place * length, length }).collect();
        let attempt = check(context, &list, None)?;
        let truth = distinct(&list)?;
        ensure!(truth == vmas, "/proc/self/maps has {truth} VMAs under {buffers} buffers of {length} bytes");
        if context.traces() && context.kernel.can_be_walked() {
            let seen = context.session()?.records_of(&[attempt])?.remove(0).vmas;
            ensure!(seen == Some(vmas), "{buffers} buffers of {length} bytes: {seen:?} VMAs, expected {vmas}");
        }
    }
    Ok(Verdict::Passed)
}

/// Number of lines of /proc/self/maps that the buffers touch.
fn distinct(buffers: &[Buffer]) -> anyhow::Result<u64> {
    let is_under = |vma: &&maps::Vma| buffers.iter().any(|b| b.address < vma.end && vma.start < b.address + b.length);
    Ok(maps::read()?.iter().filter(is_under).count() as u64)
}

/// A huge page next to a small one, in one buffer if the kernel allows it.
fn huge_and_small(context: &Context) -> TestResult {
    let mut space = Space::new(4 * HUGE_PAGE);
    space.align(Kind::Hugetlb)?;
    let address = space.map(Kind::Hugetlb, 2 * HUGE_PAGE)?;
    space.map(Kind::Anon, 4 * PAGE)?;
    let refused = context.kernel.refuses_files().then_some(0);
    check(context, &[Buffer { address: address + 12_345, length: 2 * HUGE_PAGE }], refused)?;
    check(context, &[Buffer { address: address + 12_345, length: HUGE_PAGE }], None)?;
    Ok(Verdict::Passed)
}

fn iovecs(context: &Context, count: usize, refused: Option<usize>) -> TestResult {
    let pages = 64;
    let mut space = Space::new((pages + 4) * PAGE);
    let address = space.map_split(pages)?;
    let hole = space.hole(PAGE)?;
    let mut buffers: Vec<Buffer> = (0..count as u64)
        .map(|place| Buffer {
            address: address + (place % (pages - 3)) * PAGE + place % 7,
            length: 1 + (place % 3) * PAGE,
        })
        .collect();
    if let Some(place) = refused {
        buffers[place] = Buffer { address: hole, length: PAGE };
    }
    ensure!(!buffers.contains(&EMPTY), "a layout with an empty slot");
    check(context, &buffers, refused)?;
    Ok(Verdict::Passed)
}

/// The vDSO has no file and is not anonymous. The kernel refuses to pin it for writing after checking its kind.
fn kernels_own(context: &Context) -> TestResult {
    ready(context)?;
    let maps = fs::read_to_string("/proc/self/maps")?;
    let line = maps.lines().find(|line| line.ends_with("[vdso]"));
    let Some(start) = line.and_then(|line| line.split_once('-')).map(|(start, _)| u64::from_str_radix(start, 16))
    else {
        return Ok(Verdict::Ignored("this process has no vDSO".into()));
    };
    let buffers = [Buffer { address: start?, length: PAGE }];
    let call = perform(context, &Ring::new()?, Request::Register(&buffers))?;
    ensure!(call.answer.ret < 0, "the vDSO was registered: {:?}", call.answer);
    check_records(context, &[(call, Some(0))])?;
    Ok(Verdict::Passed)
}
