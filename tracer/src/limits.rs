//! Limits of this process without which nothing can be done.

use std::sync::OnceLock;

use anyhow::{Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors without which the runtime does not start: it panics where it finds none left for its signals.
const DESCRIPTORS: u64 = 32;
/// What a session has open at most, and the service's connections.
const ENOUGH: u64 = 4096;
/// Address space without which memory runs out, at a place where nothing can be done but abort.
const ADDRESS_SPACE: u64 = 64 << 20;

/// The limit of open files that this process was started with.
static GIVEN: OnceLock<Rlimit> = OnceLock::new();

/// Refuses limits with which nothing can be done, each in one line; raises what may be raised.
///
/// # Errors
/// One is too low.
pub fn check() -> Result<()> {
    let descriptors = getrlimit(Resource::Nofile);
    let wanted = descriptors.maximum.unwrap_or(ENOUGH).min(ENOUGH);
    if descriptors.current.is_some_and(|current| current < wanted) {
        let _ = GIVEN.set(descriptors);
        // What there is may be enough.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..descriptors });
    }
    if let Some(few) = open_files().filter(|current| *current < DESCRIPTORS) {
        bail!("the limit of open files is {few} (ulimit -n): raise it to {DESCRIPTORS} or more");
    }
    if let Some(small) = getrlimit(Resource::As).current.filter(|current| *current < ADDRESS_SPACE) {
        let needed = ADDRESS_SPACE >> 10;
        bail!("the limit of address space is {} KiB (ulimit -v): raise it to {needed} or more", small >> 10);
    }
    Ok(())
}

/// The limit of open files; `None` is unlimited.
pub fn open_files() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// The limit of open files that a command is to have, where it is not that of this process.
pub fn given() -> Option<Rlimit> {
    GIVEN.get().copied()
}
