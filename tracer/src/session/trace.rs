//! `pinscope trace`: a line for each registration as it happens.

use std::{
    cell::RefCell,
    collections::HashMap,
    convert::Infallible,
    io::{BufWriter, StdoutLock, Write},
    mem::take,
    process::ExitCode,
    time::Duration,
};

use super::{
    Session,
    end::{Ended, announce},
    log,
    setup::Setup,
};
use crate::{
    cli::{args, config},
    decode::{Assembler, Filesystems, Record, Registration, decode},
    figure::Figure,
    probe::plan::Wish,
    say,
    sink::{left_running, trace as sink},
    source::{
        maps::Maps,
        records::{Bound, Records},
        wait,
    },
};
use anyhow::{Context, Result, bail};
use tokio::task::yield_now;

/// What is printed between two looks at what may end the session.
const TURN: Bound = Bound { bytes: 1 << 20, time: Duration::from_millis(50) };

/// For how long a session that was ended prints what had come by then.
const LAST: Duration = Duration::from_secs(1);

/// Runs the session, printing as it goes; the exit code is the command's, where there is one.
pub async fn trace(arguments: &args::Trace, verbose: bool) -> Result<ExitCode> {
    let ring_bytes = config::ring_bytes(arguments.buffer)?;
    let Setup { scope, wish, mut end } = Setup::new(&arguments.scope, &arguments.probes, |wish| {
        let wish = config::with_details(wish, arguments.details);
        Wish { lookups: !arguments.no_lookups, records: true, ring_bytes, log_level: log::level(verbose), ..wish }
    })?;
    let mut session = Session::start(&wish)?;
    can_be_told(&session, arguments)?;
    log::show(&mut session, verbose)?;
    let mut records = Records::open(session.ebpf_mut()?)?;
    let mut printer = Printer::new(&session, arguments);
    // What says that the session has begun comes after it has: from then on a signal ends it.
    end.begin(scope.duration)?;
    printer.start(&session, &scope)?;
    announce(&scope, "");
    let mut closed = std::pin::pin!(wait::closed(std::io::stdout()));
    let mut more = false;
    let ended = loop {
        tokio::select! {
            biased;
            ended = end.wait() => break ended?,
            () = &mut closed => return Ok(ExitCode::SUCCESS),
            // The runtime looks at signals and clocks meanwhile.
            () = yield_now(), if more => {}
            ready = records.ready(), if !more => ready?,
        }
        // The kernel wakes nobody for what already lies there.
        more = printer.drain(&session, &mut records, TURN)?;
    };
    // What lies there now is no more than the ring buffer holds; what comes meanwhile is not the session's. Whoever ends it does
    // not wait for a slow reader; a command that ended leaves nothing behind it.
    let time = if matches!(ended, Ended::Command(_)) { Duration::MAX } else { LAST };
    let rest = Bound { bytes: ring_bytes as usize, time };
    let left = if printer.drain(&session, &mut records, rest)? {
        Left::count(&mut records, rest.bytes)
    } else {
        Left::default()
    };
    printer.finish(&session, left, ended)?;
    Ok(ended.exit_code())
}

/// A filter by what this kernel does not give would let nothing through, which would look like nothing happening.
fn can_be_told(session: &Session, arguments: &args::Trace) -> Result<()> {
    let by_walk = [("--min-vmas", arguments.min_vmas.is_some()), ("--backing", !arguments.backing.is_empty())];
    let asked = by_walk.into_iter().find(|(_, given)| *given && !session.capabilities.walk);
    match asked {
        Some((option, _)) => {
            bail!("{option} filters by what cannot be told here ({}); leave it out", why_no_walk(session))
        }
        None => Ok(()),
    }
}

fn why_no_walk(session: &Session) -> &str {
    session.capabilities.figures.missing(Figure::Vmas).unwrap_or("no walk")
}

/// From records to lines on standard output.
struct Printer<'a> {
    assembler: Assembler,
    arguments: &'a args::Trace,
    filesystems: HashMap<u64, String>,
    out: BufWriter<StdoutLock<'static>>,
}

/// Records that came and were not printed.
#[derive(Clone, Copy, Debug, Default)]
struct Left {
    registrations: u64,
    buffers: u64,
}

impl Left {
    /// Takes what lies there, up to so many bytes.
    fn count(records: &mut Records, bytes: usize) -> Self {
        let mut left = Self::default();
        let _ = records.drain(Bound { bytes, time: Duration::MAX }, |bytes| {
            match decode(bytes) {
                Ok(Record::Registration(..)) => left.registrations += 1,
                Ok(Record::Buffer(..)) => left.buffers += 1,
                Err(_) => {}
            }
            Ok::<_, Infallible>(())
        });
        left
    }
}

/// The names that the eBPF side has noted. The map is read only for one that is not known yet: while a task is
/// preempted in a read of a map, the kernel skips kprobes and perf events on that CPU.
struct Names<'a> {
    maps: &'a Maps,
    capabilities: RefCell<HashMap<u64, String>>,
}

impl Filesystems for Names<'_> {
    fn name(&self, address: u64) -> Option<String> {
        if address == 0 {
            return None;
        }
        if !self.capabilities.borrow().contains_key(&address) {
            match self.maps.filesystems() {
                Ok(names) => self.capabilities.borrow_mut().extend(names),
                Err(error) => tracing::debug!("{error}"),
            }
        }
        self.capabilities.borrow().get(&address).cloned()
    }
}

impl<'a> Printer<'a> {
    fn new(session: &Session, arguments: &'a args::Trace) -> Self {
        let out = BufWriter::new(std::io::stdout().lock());
        Self {
            assembler: Assembler::new(session.capabilities.clone(), session.clock()),
            arguments,
            filesystems: HashMap::new(),
            out,
        }
    }

    fn start(&mut self, session: &Session, scope: &config::Scope) -> Result<()> {
        let line = if self.arguments.json {
            sink::json_start(&session.meta(scope), &session.capabilities.figures)?
        } else {
            sink::header()
        };
        self.line(&line)?;
        self.out.flush().context("cannot write")
    }

    /// Prints what lies there, within a bound; whether there may be more.
    fn drain(&mut self, session: &Session, records: &mut Records, bound: Bound) -> Result<bool> {
        let filesystems = Names { maps: session.maps()?, capabilities: RefCell::new(take(&mut self.filesystems)) };
        // The wall clock may have been set since the last time, or the machine been asleep.
        self.assembler.set_clock(session.clock());
        let more = records.drain(bound, |bytes| {
            self.assembler.push(bytes, &filesystems).map_or(Ok(()), |registration| self.print(&registration))
        });
        self.filesystems = filesystems.capabilities.into_inner();
        self.out.flush().context("cannot write")?;
        more
    }

    fn print(&mut self, registration: &Registration) -> Result<()> {
        if !wanted(registration, self.arguments) {
            return Ok(());
        }
        let line = if self.arguments.json { sink::json_line(registration)? } else { sink::line(registration) };
        self.line(&line)
    }

    fn line(&mut self, line: &str) -> Result<()> {
        writeln!(self.out, "{line}").context("cannot write")
    }

    fn finish(mut self, session: &Session, left: Left, ended: Ended) -> Result<()> {
        let snapshot = session.snapshot()?;
        let (mut lost, under_way) = (snapshot.lost, snapshot.under_way);
        lost.registration_records = lost.registration_records.map(|lost| lost + left.registrations);
        lost.buffer_records = lost.buffer_records.map(|lost| lost + left.buffers);
        let counts = self.assembler.finish();
        if self.arguments.json {
            let line = sink::json_end(counts, Some(&lost), under_way.as_ref(), ended.left_running())?;
            writeln!(self.out, "{line}").context("cannot write")?;
        } else {
            for call in under_way.iter().flat_map(|calls| &calls.long) {
                say::line(sink::under_way(call));
            }
            if let Some(words) = under_way.as_ref().and_then(sink::unseen_ends) {
                say::line(words);
            }
            if let Some(words) = left_running(ended.left_running()) {
                say::line(words);
            }
            say::line(sink::footer(counts, Some(&lost)));
        }
        self.out.flush().context("cannot write")
    }
}

/// The filters that need a whole registration.
fn wanted(registration: &Registration, arguments: &args::Trace) -> bool {
    let duration = || arguments.min_duration.map(|wanted| u64::try_from(wanted.as_nanos()).unwrap_or(u64::MAX));
    let backing = |class: &String| registration.backings.iter().any(|backing| backing.class == class.as_str());
    (!arguments.failed || registration.is_short())
        && arguments.min_vmas.is_none_or(|wanted| registration.vmas.is_some_and(|vmas| vmas >= wanted))
        && duration().is_none_or(|wanted| time_of(registration).is_some_and(|took| took >= wanted))
        && (arguments.backing.is_empty() || arguments.backing.iter().any(backing))
}

/// The caller's time where it is known, else the function's.
fn time_of(registration: &Registration) -> Option<u64> {
    registration.call_ns.or(registration.duration_ns)
}
