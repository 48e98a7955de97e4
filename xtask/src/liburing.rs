//! liburing's own tests, which serve as workloads written by others: built from Debian's source package and cached.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    apt::Archive,
    cache::{Cache, remove},
    exec::read,
    setup,
};

/// A program's path in the guest and its path on this machine.
pub type Program = (String, PathBuf);

const PACKAGE: &str = "liburing";
const SUITE: &str = "trixie";
/// Part of the name in the cache. To be raised when the programs, or the way they are built, change.
const LAYOUT: u32 = 1;
/// Tests that register buffers in different ways and end within seconds. `tracer/tests/vm/tests/liburing.rs` runs them.
const PROGRAMS: [&str; 5] =
    ["fixed-hugepage.t", "io_uring_register.t", "regbuf-clone.t", "register-restrictions.t", "rsrc_tags.t"];
/// Packages needed to build them.
const TOOLS: [&str; 4] = ["dpkg-dev", "gcc", "libc6-dev", "make"];

/// The programs, linked statically. Fetches and builds them if they are not cached.
pub fn programs(cache: &Cache) -> Result<Vec<Program>> {
    let name = format!("packages/{SUITE}-{PACKAGE}-tests-{LAYOUT}");
    let mut folder = cache.path(&name);
    if !folder.is_dir() {
        setup::install(&TOOLS, "builds liburing's own tests, which run in guests")?;
        let guard = cache.lock()?;
        folder = cache.folder(&name, &guard, |folder| {
            println!("setup: liburing's own tests, for guests; the sources of Debian {SUITE}, built into the cache");
            let archive = Archive::open_sources(cache, &guard, &format!("{SUITE}-sources"), &[SUITE])?;
            let work = folder.join("work");
            build(&archive.unpack_source(PACKAGE, &work)?, folder)?;
            remove(&work)
        })?;
    }
    Ok(PROGRAMS.iter().map(|program| (format!("/usr/lib/liburing/{program}"), folder.join(program))).collect())
}

/// Builds the library as Debian configures it, and the tests in [`PROGRAMS`]. They are static, like everything that
/// goes into guests.
fn build(sources: &Path, folder: &Path) -> Result<()> {
    let make = |part: &str| {
        let mut make = Command::new("make");
        // cargo's job server is not meant for this make.
        make.env_remove("MAKEFLAGS").env_remove("MFLAGS").arg("--directory").arg(sources.join(part));
        make
    };
    read(Command::new("./configure").args(["--use-libc", "--cc=gcc"]).current_dir(sources))?;
    read(make("src").arg("liburing.a"))?;
    read(make("test").arg("LDFLAGS=-static -s").args(PROGRAMS))?;
    for program in PROGRAMS {
        let built = sources.join("test").join(program);
        fs::copy(&built, folder.join(program)).with_context(|| format!("make built no {}", built.display()))?;
    }
    Ok(())
}
