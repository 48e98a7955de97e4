//! Memory that every rule accepts but that the kernel cannot fault in: it returns `EFAULT`, independent of the rules.

use std::{
    fs::{self, File},
    os::fd::OwnedFd,
    process::Command,
};

use anyhow::{Context as _, ensure};

use crate::{
    errno::result_name,
    ring::{Buffer, Request, Ring},
    space::{Kind, Space},
    sys::{self, HUGE_PAGE, PAGE},
};

/// Beginning of a line about such a buffer.
const LINE: &str = "unserved ";
/// Printed instead of an answer if the kernel cannot create such memory.
const ABSENT: &str = "absent";

/// A way to create such memory. Registers the buffer while the conditions last.
type Way = fn(&Ring, &mut Space) -> anyhow::Result<i64>;

const WAYS: [(&str, Way); 6] = [
    ("beyond_the_file", beyond_the_file),
    ("full_tmpfs", full_tmpfs),
    ("full_hugetlb_pool", full_hugetlb_pool),
    ("guarded", guarded),
    ("poisoned", poisoned),
    ("userfaultfd", user_mode_only),
];

/// Number of ways that every kernel of the matrix supports.
const ALWAYS: usize = 3;

/// Registers each, and prints a line with the kernel's answer.
pub fn register_all(ring: &Ring) {
    for (name, way) in WAYS {
        match way(ring, &mut Space::new(256 << 20)) {
            Ok(ret) => println!("{LINE}{name} {}", result_name(ret)),
            Err(error) => println!("{LINE}{name} {ABSENT}: {error:#}"),
        }
    }
}

/// Number of buffers in those lines; each must have the only possible answer.
pub fn count(stdout: &str) -> anyhow::Result<u64> {
    let mut count = 0;
    for line in stdout.lines().filter_map(|line| line.strip_prefix(LINE)) {
        let (name, answer) = line.split_once(' ').context("a line without an answer")?;
        let always = WAYS.iter().take(ALWAYS).any(|(way, _)| *way == name);
        if answer.starts_with(ABSENT) && !always {
            println!("    {line}");
            continue;
        }
        ensure!(answer == "EFAULT", "{name}: the kernel answered {answer}");
        count += 1;
    }
    ensure!(count >= ALWAYS as u64, "{count} buffers could not be served");
    Ok(count)
}

fn register(ring: &Ring, address: u64, length: u64) -> i64 {
    let answer = ring.call(Request::Register(&[Buffer { address, length }]));
    if answer.ret >= 0 {
        ring.call(Request::Unregister);
    }
    answer.ret
}

fn beyond_the_file(ring: &Ring, space: &mut Space) -> anyhow::Result<i64> {
    let file = sys::memfd_of(0, PAGE)?;
    let address = space.map_file(&file, 0, 2 * PAGE)?;
    Ok(register(ring, address, 2 * PAGE))
}

fn full_tmpfs(ring: &Ring, space: &mut Space) -> anyhow::Result<i64> {
    let folder = format!("/tmp/full-{}", std::process::id());
    fs::create_dir(&folder)?;
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=32k", "full", &folder]).status()?;
    ensure!(mounted.success(), "mount: {mounted}");
    let file = File::options().read(true).write(true).create_new(true).open(format!("{folder}/file"))?;
    file.set_len(16 * PAGE)?;
    let address = space.map_file(&OwnedFd::from(file), 0, 16 * PAGE)?;
    let ret = register(ring, address, 16 * PAGE);
    Command::new("umount").args(["-l", &folder]).status()?;
    fs::remove_dir(&folder)?;
    Ok(ret)
}

/// Other mappings have reserved the whole pool without touching it.
fn full_hugetlb_pool(ring: &Ring, space: &mut Space) -> anyhow::Result<i64> {
    let address = space.map_unreserved()?;
    let mut others = Space::new(100 * HUGE_PAGE);
    while others.map(Kind::Hugetlb, HUGE_PAGE).is_ok() {
        ensure!(others.length() < 90 * HUGE_PAGE, "the pool has no end");
    }
    Ok(register(ring, address, HUGE_PAGE))
}

/// Available since 6.13.
fn guarded(ring: &Ring, space: &mut Space) -> anyhow::Result<i64> {
    let address = space.map(Kind::Anon, 2 * PAGE)?;
    sys::take_away(address + PAGE, PAGE, sys::MADV_GUARD_INSTALL).context("MADV_GUARD_INSTALL")?;
    Ok(register(ring, address, 2 * PAGE))
}

fn poisoned(ring: &Ring, space: &mut Space) -> anyhow::Result<i64> {
    let address = space.map(Kind::Anon, 2 * PAGE)?;
    sys::touch(address, 2 * PAGE);
    sys::take_away(address + PAGE, PAGE, libc::MADV_HWPOISON).context("MADV_HWPOISON")?;
    Ok(register(ring, address, 2 * PAGE))
}

/// It serves faults of the process only, not those of the kernel.
fn user_mode_only(ring: &Ring, space: &mut Space) -> anyhow::Result<i64> {
    let address = space.map(Kind::Anon, 2 * PAGE)?;
    let _served = sys::serve_user_mode_faults(address, 2 * PAGE).context("userfaultfd(2)")?;
    Ok(register(ring, address, 2 * PAGE))
}
