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

/// Waits until nobody reads from this pipe or socket any more; for ever for a file or a terminal.
pub async fn closed(output: impl AsFd) {
    let Ok(output) = output.as_fd().try_clone_to_owned() else { return std::future::pending().await };
    // SAFETY: an owned descriptor, which nothing else closes.
    let Ok(output) = (unsafe { AsyncFd::register_with_interest(output, Interest::ERROR) }) else {
        // A file cannot be waited for, and has no reader to lose.
        return std::future::pending().await;
    };
    if output.ready(Interest::ERROR).await.is_err() {
        std::future::pending::<()>().await;
    }
}
