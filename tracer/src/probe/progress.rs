//! What a start is doing, told to whoever waits for it.

use std::{
    fmt,
    io::{self, IsTerminal as _},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::termios::tcgetwinsize;

/// A start that is over before this shows nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// Columns of a terminal that does not say.
const COLUMNS: usize = 80;

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
    /// For a service, whose log is no terminal's: only the log.
    pub fn quiet() -> Self {
        Self { begun: Instant::now(), shown: None }
    }

    /// For a session: on standard error too, where that is a terminal.
    pub fn shown() -> Self {
        let shown = io::stderr().is_terminal().then(|| {
            let (steps, told) = mpsc::channel();
            let write = move || show(&told, PATIENCE, &mut io::stderr());
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

/// Writes the step under way once the start has taken long, each in the place of the one before, and nothing in the end.
fn show(told: &mpsc::Receiver<Step>, patience: Duration, out: &mut impl io::Write) {
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
        if is_shown && let Some(step) = last {
            replace(out, &format!("pinscope: {step} ..."));
        }
    }
    if is_shown {
        replace(out, "");
    }
}

/// A line in the place of the last, no longer than the terminal is wide: a part that wrapped would stay.
fn replace(out: &mut impl io::Write, line: &str) {
    let columns = tcgetwinsize(io::stderr()).map_or(0, |size| usize::from(size.ws_col));
    let columns = if columns == 0 { COLUMNS } else { columns };
    let line: String = line.chars().take(columns - 1).collect();
    // The session does not depend on it.
    let _ = write!(out, "\r\x1b[K{line}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(patience: Duration, steps: &[Step]) -> String {
        let (sender, told) = mpsc::channel();
        for step in steps {
            sender.send(*step).unwrap();
        }
        // Long enough for a patience of nothing to be over.
        thread::scope(|scope| {
            let writer = scope.spawn(move || {
                let mut out = Vec::new();
                show(&told, patience, &mut out);
                String::from_utf8(out).unwrap()
            });
            thread::sleep(Duration::from_millis(20));
            drop(sender);
            writer.join().unwrap()
        })
    }

    #[test]
    fn a_quick_start_shows_nothing() {
        assert_eq!(shown(Duration::from_mins(1), &[Step::Kernel, Step::Attach(3)]), "");
    }

    #[test]
    fn a_slow_one_shows_what_it_is_doing_and_leaves_nothing() {
        let text = shown(Duration::ZERO, &[Step::Kernel, Step::Verify(7)]);
        assert!(text.contains("\r\x1b[Kpinscope: the kernel's verifier is checking 7 programs ..."), "{text:?}");
        assert!(text.ends_with("\r\x1b[K"), "{text:?}");
    }
}
