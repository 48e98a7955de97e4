//! A signal during the start.
//!
//! A start is system calls one after the other on the runtime's own thread, of which one can take seconds, so the runtime hears
//! of no signal meanwhile. A signal therefore ends the process at once, as its default action would, but with a line that says
//! so. Nothing is left behind: programs, maps and links go with their descriptors, and the supervisor of a command that has not
//! begun goes with its control socket.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use anyhow::{Context as _, Result};
use libc::c_int;

use crate::probe::progress;

static STARTING: AtomicBool = AtomicBool::new(false);

const LINE: &[u8] = b"pinscope: interrupted while starting; nothing was measured\n";

/// From now on these signals end the process, until the start is [`over`].
pub fn begin(signals: impl IntoIterator<Item = c_int>) -> Result<()> {
    STARTING.store(true, SeqCst);
    for signal in signals {
        let action = move || {
            if STARTING.load(SeqCst) {
                end_by(signal);
            }
        };
        // SAFETY: the action makes system calls only.
        unsafe { signal_hook_registry::register(signal, action) }.context("cannot listen for signals")?;
    }
    Ok(())
}

/// From now on signals are the runtime's.
pub fn over() {
    STARTING.store(false, SeqCst);
}

/// Runs in a signal's handler.
fn end_by(signal: c_int) {
    let shown = if progress::is_shown() { progress::CLEAR } else { b"" };
    // SAFETY: only what a handler may call (signal-safety(7)), on memory that lives for ever or in this frame.
    unsafe {
        // First: if the line cannot be written for now, the next signal ends the process still.
        libc::signal(signal, libc::SIG_DFL);
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
        for text in [shown, LINE] {
            libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len());
        }
        libc::raise(signal);
        // Who ignores it, such as the first process of a PID namespace.
        libc::_exit(128 + signal);
    }
}
