//! pinscope's own log: to the journal with level and fields where standard error leads there, else as lines.
//!
//! What repeats is said once and then counted: a scrape that fails every 15 s would fill a journal with one sentence.

use std::{
    collections::HashMap,
    fmt::{self, Write as _},
    os::fd::AsFd,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{Event, Level, Subscriber, field::Field, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    layer::{Context, SubscriberExt as _},
    reload,
    util::SubscriberInitExt as _,
};

use crate::say;

/// A warning or an error of the same words is left out for this long.
const QUIET: Duration = Duration::from_mins(10);
/// Different texts that are kept apart; with more, the oldest is forgotten and may be said again.
const TEXTS: usize = 64;

/// The log of this process.
pub struct Logging {
    filter: reload::Handle<EnvFilter, Registry>,
    repeats: Arc<Mutex<Repeats>>,
    journal: bool,
}

/// Begins to log. `RUST_LOG` wins over `verbose`.
pub fn start(verbose: u8) -> Logging {
    let journal = leads_to_journal().then(|| tracing_journald::layer().ok()).flatten();
    let in_journal = journal.is_some();
    let (filter, handle) = reload::Layer::new(filter(verbose, in_journal));
    let repeats = Arc::new(Mutex::new(Repeats::default()));
    let lines = (!in_journal).then(|| {
        // What cannot be written is not to be said either: it would panic.
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).without_time().log_internal_errors(false)
    });
    let quiet = Quiet(Arc::clone(&repeats));
    tracing_subscriber::registry().with(filter).with(quiet).with(journal).with(lines).init();
    Logging { filter: handle, repeats, journal: in_journal }
}

impl Logging {
    /// Logs more or less from now on.
    pub fn set(&self, verbose: u8) {
        // It fails only where the subscriber is gone.
        let _ = self.filter.reload(filter(verbose, self.journal));
        log::set_max_level(for_log(LevelFilter::current()));
    }

    /// Says why the program ends, in one line.
    pub fn fatal(&self, line: &str) {
        if self.journal {
            tracing::error!("{line}");
        } else {
            say::line(format_args!("pinscope: {line}"));
        }
    }

    /// From now on everything is said again at first: somebody changes something, and looks at what comes of it.
    pub fn begin_anew(&self) {
        self.repeats.lock().unwrap_or_else(PoisonError::into_inner).begin_anew();
    }

    /// Says how often what was left out would have been said.
    pub fn sum_up(&self) {
        let left_out = self.repeats.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
        for (text, times) in left_out {
            tracing::info!(times, "said {times} times more in the last minutes: {text}");
        }
    }
}

/// The probes' own log has the object's crate name. What aya says of the limit of locked memory is no matter where it
/// does not count, and an error where it does.
fn filter(verbose: u8, journal: bool) -> EnvFilter {
    let default = match (verbose, journal) {
        (0, false) => "warn,aya::sys::bpf=error",
        // Few lines, and those that one looks for: what was attached, a reload, the end.
        (0, true) => "warn,pinscope=info,aya::sys::bpf=error",
        (1, _) => "info,pinscope_ebpf=debug",
        _ => "debug,aya_obj=warn",
    };
    EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default))
}

fn for_log(level: LevelFilter) -> log::LevelFilter {
    match level.into_level() {
        None => log::LevelFilter::Off,
        Some(Level::ERROR) => log::LevelFilter::Error,
        Some(Level::WARN) => log::LevelFilter::Warn,
        Some(Level::INFO) => log::LevelFilter::Info,
        Some(Level::DEBUG) => log::LevelFilter::Debug,
        Some(Level::TRACE) => log::LevelFilter::Trace,
    }
}

/// Whether standard error is the stream that systemd connected to the journal (`JOURNAL_STREAM`, systemd.exec(5)).
fn leads_to_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(std::io::stderr().as_fd()).is_ok_and(|stat| names(&stream, stat.st_dev, stat.st_ino))
}

/// Whether `DEVICE:INODE` names this file.
fn names(stream: &str, device: u64, inode: u64) -> bool {
    let numbers = stream.split_once(':').map(|(device, inode)| (device.parse(), inode.parse()));
    numbers == Some((Ok(device), Ok(inode)))
}

/// Keeps back what was said a moment ago.
struct Quiet(Arc<Mutex<Repeats>>);

impl<S: Subscriber> Layer<S> for Quiet {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        if *event.metadata().level() > Level::WARN {
            return true;
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).admit(text.0, Instant::now())
    }
}

/// An event's fields as one text.
struct Text(String);

impl tracing::field::Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = if field.name() == "message" {
            write!(self.0, "{value:?}")
        } else {
            write!(self.0, " {}={value:?}", field.name())
        };
    }
}

/// What was said, and how often more it would have been.
#[derive(Default)]
struct Repeats {
    said: HashMap<String, Said>,
    /// Of texts that were said anew or forgotten since.
    left_out: Vec<(String, u64)>,
}

struct Said {
    at: Instant,
    left_out: u64,
}

impl Repeats {
    /// Whether to say it; counts it if not.
    fn admit(&mut self, text: String, now: Instant) -> bool {
        if let Some(said) = self.said.get_mut(&text)
            && now.duration_since(said.at) < QUIET
        {
            said.left_out += 1;
            return false;
        }
        if self.said.len() >= TEXTS
            && let Some(oldest) = self.said.iter().min_by_key(|(_, said)| said.at).map(|(text, _)| text.clone())
        {
            self.forget(&oldest);
        }
        self.forget(&text);
        self.said.insert(text, Said { at: now, left_out: 0 });
        true
    }

    fn begin_anew(&mut self) {
        let all: Vec<_> = self.said.keys().cloned().collect();
        for text in all {
            self.forget(&text);
        }
    }

    fn forget(&mut self, text: &str) {
        if let Some((text, said)) = self.said.remove_entry(text)
            && said.left_out > 0
            && self.left_out.len() < TEXTS
        {
            self.left_out.push((text, said.left_out));
        }
    }

    /// The texts whose time is over, and how often each was left out.
    fn take(&mut self, now: Instant) -> Vec<(String, u64)> {
        let over: Vec<_> = self.said.iter().filter(|(_, said)| now.duration_since(said.at) >= QUIET).collect();
        let over: Vec<_> = over.into_iter().map(|(text, _)| text.clone()).collect();
        for text in over {
            self.forget(&text);
        }
        std::mem::take(&mut self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_repeats_is_said_once_and_counted() {
        let mut repeats = Repeats::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(repeats.admit("a".into(), at(0)) && repeats.admit("b".into(), at(0)));
        assert!((1..40).all(|n| !repeats.admit("a".into(), at(n * 15))));
        assert!(repeats.take(at(599)).is_empty());
        assert_eq!(repeats.take(at(600)), [("a".to_owned(), 39)]);
        assert!(repeats.admit("a".into(), at(600)), "its time was over");
        assert!(repeats.take(at(1300)).is_empty());
    }

    #[test]
    fn what_is_said_anew_before_anyone_summed_up_is_not_lost() {
        let mut repeats = Repeats::default();
        let start = Instant::now();
        assert!(repeats.admit("a".into(), start) && !repeats.admit("a".into(), start));
        assert!(repeats.admit("a".into(), start + QUIET));
        assert_eq!(repeats.take(start + QUIET), [("a".to_owned(), 1)]);
    }

    #[test]
    fn after_a_beginning_everything_is_said_again_and_nothing_is_lost() {
        let mut repeats = Repeats::default();
        let start = Instant::now();
        assert!(repeats.admit("a".into(), start) && !repeats.admit("a".into(), start));
        repeats.begin_anew();
        assert!(repeats.admit("a".into(), start));
        assert_eq!(repeats.take(start), [("a".to_owned(), 1)]);
    }

    #[test]
    fn endless_new_texts_take_no_endless_memory() {
        let mut repeats = Repeats::default();
        let start = Instant::now();
        for number in 0..10_000 {
            assert!(repeats.admit(number.to_string(), start + Duration::from_millis(number)));
        }
        assert_eq!(repeats.said.len(), TEXTS);
        assert!(repeats.said.contains_key("9999") && !repeats.said.contains_key("0"));
    }

    #[test]
    fn the_journal_s_stream_is_told_by_device_and_inode() {
        assert!(names("8:1234", 8, 1234));
        for other in ["8:1235", "9:1234", "", "8", "8:1234:1", "x:1234"] {
            assert!(!names(other, 8, 1234), "{other}");
        }
    }
}
