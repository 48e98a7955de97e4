//! What a start is doing, told to whoever waits for it.

use std::{
    ffi::OsStr,
    fmt,
    io::{self, IsTerminal as _},
    sync::{
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::termios::tcgetwinsize;

/// A start that is over before this shows nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// Columns of a terminal that does not say.
const COLUMNS: usize = 80;

/// To the line's beginning, and away with what is there.
pub const CLEAR: &[u8] = b"\r\x1b[K";

/// Whether a step stands in the terminal's last line.
static SHOWN: AtomicBool = AtomicBool::new(false);

/// The same.
pub fn is_shown() -> bool {
    SHOWN.load(Relaxed)
}

/// A part of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Reading what a session plans by.
    Kernel,
    /// Something could not be hooked: reading why.
    WholeKernel,
    /// Making the maps.
    Object,
    /// Having the verifier check so many programs.
    Verify(usize),
    /// Attaching so many.
    Attach(usize),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel => write!(f, "reading the kernel's types"),
            Self::WholeKernel => write!(f, "not all could be hooked; reading why"),
            Self::Object => write!(f, "making the eBPF maps"),
            Self::Verify(count) => write!(f, "the kernel's verifier is checking {count} programs"),
            Self::Attach(count) => write!(f, "attaching {count} probes"),
        }
    }
}

/// Tells the steps of a start: their times to the log, and to a terminal what is under way, once it takes long.
pub struct Progress {
    begun: Instant,
    shown: Option<Shown>,
}

struct Shown {
    steps: Sender<Step>,
    writer: JoinHandle<()>,
}

impl Progress {
    /// To the log, and to standard error where that is a terminal.
    pub fn begin() -> Self {
        let shown = io::stderr().is_terminal().then(|| {
            let (steps, told) = mpsc::channel();
            let dumb = is_dumb(std::env::var_os("TERM").as_deref());
            let write = move || show(&told, PATIENCE, dumb, &mut io::stderr());
            // Without a thread nothing is shown.
            thread::Builder::new().spawn(write).ok().map(|writer| Shown { steps, writer })
        });
        Self { begun: Instant::now(), shown: shown.flatten() }
    }

    /// A step begins; the one before it has ended.
    pub fn step(&self, step: Step) {
        tracing::debug!("start: {step}, after {} us", self.begun.elapsed().as_micros());
        if let Some(shown) = &self.shown {
            // The writer ends only with this sender.
            let _ = shown.steps.send(step);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        tracing::debug!("start: done, after {} us", self.begun.elapsed().as_micros());
        if let Some(Shown { steps, writer }) = self.shown.take() {
            drop(steps);
            // It writes to a terminal; if that failed, there is nobody to tell.
            let _ = writer.join();
        }
    }
}

/// Whether a terminal of this kind can only add lines.
fn is_dumb(kind: Option<&OsStr>) -> bool {
    kind.is_none_or(|kind| kind.is_empty() || kind == "dumb")
}

/// Writes the step under way once the start has taken long: each in the place of the one before, and nothing in the end; or, where
/// the terminal is dumb, as a line.
fn show(told: &mpsc::Receiver<Step>, patience: Duration, dumb: bool, out: &mut impl io::Write) {
    let deadline = Instant::now() + patience;
    let mut last = None;
    let mut is_shown = false;
    loop {
        let wait = deadline.saturating_duration_since(Instant::now());
        let heard =
            if is_shown { told.recv().map_err(|_| RecvTimeoutError::Disconnected) } else { told.recv_timeout(wait) };
        match heard {
            Ok(step) => last = Some(step),
            Err(RecvTimeoutError::Timeout) => is_shown = true,
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let Some(step) = last.filter(|_| is_shown) else { continue };
        let line = format!("pinscope: {step} ...");
        if dumb {
            // The session does not depend on it.
            let _ = writeln!(out, "{line}");
        } else {
            SHOWN.store(true, Relaxed);
            replace(out, &line);
        }
    }
    if is_shown && !dumb {
        replace(out, "");
        SHOWN.store(false, Relaxed);
    }
}

/// A line in the place of the last, no longer than the terminal is wide: a part that wrapped would stay.
fn replace(out: &mut impl io::Write, line: &str) {
    let columns = tcgetwinsize(io::stderr()).map_or(0, |size| usize::from(size.ws_col));
    let columns = if columns == 0 { COLUMNS } else { columns };
    let line: String = line.chars().take(columns - 1).collect();
    let text = [CLEAR, line.as_bytes()].concat();
    // In one piece; the session does not depend on it.
    let _ = out.write_all(&text).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(patience: Duration, dumb: bool, steps: &[Step]) -> String {
        let (sender, told) = mpsc::channel();
        for step in steps {
            sender.send(*step).unwrap();
        }
        // Long enough for a patience of nothing to be over.
        thread::scope(|scope| {
            let writer = scope.spawn(move || {
                let mut out = Vec::new();
                show(&told, patience, dumb, &mut out);
                String::from_utf8(out).unwrap()
            });
            thread::sleep(Duration::from_millis(20));
            drop(sender);
            writer.join().unwrap()
        })
    }

    #[test]
    fn a_quick_start_shows_nothing() {
        assert_eq!(shown(Duration::from_mins(1), false, &[Step::Kernel, Step::Attach(3)]), "");
    }

    #[test]
    fn a_slow_one_shows_what_it_is_doing_and_leaves_nothing() {
        let text = shown(Duration::ZERO, false, &[Step::Kernel, Step::Verify(7)]);
        assert!(text.contains("\r\x1b[Kpinscope: the kernel's verifier is checking 7 programs ..."), "{text:?}");
        assert!(text.ends_with("\r\x1b[K"), "{text:?}");
    }

    #[test]
    fn a_dumb_terminal_gets_lines() {
        let text = shown(Duration::ZERO, true, &[Step::Kernel, Step::Verify(7)]);
        assert!(text.ends_with("pinscope: the kernel's verifier is checking 7 programs ...\n"), "{text:?}");
        assert!(!text.contains(['\r', '\x1b']), "{text:?}");
        let kinds = [None, Some(""), Some("dumb"), Some("linux"), Some("xterm-256color")];
        assert_eq!(kinds.map(|kind| is_dumb(kind.map(OsStr::new))), [true, true, true, false, false]);
    }
}
