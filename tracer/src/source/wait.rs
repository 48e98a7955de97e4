//! Waiting for a file descriptor, with the one `unsafe` that this takes.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use tokio::io::{Interest, unix::AsyncFd};

/// Registers what owns a file descriptor with the runtime, to wait until it is readable. Must run inside a runtime.
pub fn readable<T: AsFd + AsRawFd>(inner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: what implements `AsFd` holds its descriptor open for as long as it lives; the types used here (an owned
    // descriptor, aya's ring buffer and logger) each hold one, give the same one by both traits, and cannot swap it.
    unsafe { AsyncFd::register_with_interest(inner, Interest::READABLE) }.map_err(io::Error::from)
}
