//! Tests of sessions: their lines, scope and end.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    os::fd::{FromRawFd as _, OwnedFd},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use super::{storm::generator, without_tracer};
use crate::{
    attempt::perform,
    clock,
    compare::compare,
    context::Context,
    pinscope::{self, Running},
    protocol::{Test, TestResult, Verdict, no_problems},
    ring::{Buffer, Request, Ring},
    space::{Kind, Space},
    sys::PAGE,
    trace::Trace,
};

pub fn tests() -> Vec<Test> {
    vec![
        // First, while the session exists: it has seen all earlier tests.
        Test::new("common_session_ends_well", common_ends_well),
        Test::new("session_of_another_process_sees_nothing", another_process),
        Test::new("session_stops_at_once", stops_at_once),
        Test::new("session_two_at_once", two_at_once),
        Test::new("session_filters", filters).within(Duration::from_mins(5)),
        Test::new("session_duration", duration),
        Test::new("session_on_a_terminal", on_a_terminal),
        Test::new("session_of_a_service_on_a_terminal", service_on_a_terminal),
        Test::new("session_ends_in_a_storm", ends_in_a_storm),
        Test::new("session_follows_the_wall_clock", follows_the_wall_clock),
    ]
}

fn common_ends_well(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let Some(session) = context.take_session() else {
        return Ok(Verdict::Ignored("no test of this run used the common session".into()));
    };
    let ended = session.map_err(anyhow::Error::msg)?.interrupt()?;
    let finished = ended.finished.expect_code(0)?;
    ensure!(finished.stderr.is_empty(), "standard error: {}", finished.stderr);
    ensure!(ended.end["registrations"] == ended.records.len(), "{} of {} records", ended.records.len(), ended.end);
    for key in ["lost_registration_records", "lost_buffer_records", "malformed", "orphans"] {
        ensure!(ended.end[key] == 0, "{key}: {}", ended.end);
    }
    // A few are caused by the kernel itself. With more, the walk does not work as assumed.
    let (busy, most) = (context.busy.get(), 5 + ended.records.len() as u64 / 50);
    println!("    {} records, {busy} walks found the lock taken", ended.records.len());
    ensure!(busy <= most, "{busy} walks found the lock taken, more than {most}");
    let ordered =
        ended.records.windows(2).all(|pair| pair[0].tid != pair[1].tid || pair[0].start_ns <= pair[1].start_ns);
    ensure!(ordered, "the records of a thread are not in order");
    Ok(Verdict::Passed)
}

/// A page that is registered repeatedly.
fn page(space: &mut Space) -> anyhow::Result<[Buffer; 1]> {
    Ok([Buffer { address: space.map(Kind::Anon, PAGE)?, length: PAGE }])
}

fn another_process(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let mut space = Space::new(PAGE);
    let buffers = page(&mut space)?;
    let trace = Trace::start(context, &["--pid", "1"])?;
    perform(context, &Ring::new()?, Request::Register(&buffers))?;
    let ended = trace.interrupt()?;
    ensure!(ended.records.is_empty(), "{:?}", ended.records);
    Ok(Verdict::Passed)
}

fn stops_at_once(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let trace = Trace::start(context, &[])?;
    let started = Instant::now();
    trace.interrupt()?.finished.expect_code(0)?;
    let took = started.elapsed();
    ensure!(took < Duration::from_secs(3), "Ctrl-C took {took:?}");
    Ok(Verdict::Passed)
}

fn two_at_once(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let mut space = Space::new(8 * PAGE);
    let buffers = [Buffer { address: space.map_split(3)?, length: 3 * PAGE }];
    let pid = std::process::id().to_string();
    let sessions = [Trace::start(context, &["--pid", &pid])?, Trace::start(context, &["--pid", &pid])?];
    let ring = Ring::new()?;
    let call = perform(context, &ring, Request::Register(&buffers))?;
    for session in sessions {
        let records = session.records_of(std::slice::from_ref(&call))?;
        no_problems(&compare(context, &call, &records[0], None))?;
        session.interrupt()?.finished.expect_code(0)?;
    }
    Ok(Verdict::Passed)
}

/// Output filters, each with a call that passes and one that does not.
fn filters(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let mut space = Space::new(64 * PAGE);
    let one = page(&mut space)?;
    let many = [Buffer { address: space.map_split(10)?, length: 10 * PAGE }];
    let memfd = [Buffer { address: space.map(Kind::Memfd, PAGE)?, length: PAGE }];
    let bad = [Buffer { address: space.hole(PAGE)?, length: PAGE }];
    let mut filters = vec![(&["--failed"][..], &bad)];
    let by_walk = [(&["--min-vmas", "10"][..], &many), (&["--backing", "shmem"][..], &memfd)];
    if context.kernel.can_be_walked() {
        filters.extend(by_walk);
    } else {
        for (arguments, _) in by_walk {
            let refused =
                pinscope::command(&[&["trace", "--attach", &context.attach][..], arguments].concat()).output()?;
            let words = String::from_utf8_lossy(&refused.stderr).into_owned();
            ensure!(!refused.status.success() && words.contains(arguments[0]), "{arguments:?}: {words}");
        }
    }
    for (arguments, passing) in filters {
        let pid = std::process::id().to_string();
        let trace = Trace::start(context, &[&["--pid", &pid][..], arguments].concat())?;
        let mut expected = None;
        for buffers in [&one, &many, &memfd, &bad] {
            let call = perform(context, &Ring::new()?, Request::Register(buffers))?;
            if buffers == passing {
                expected = Some(call);
            }
        }
        let expected: Vec<_> = expected.into_iter().collect();
        trace.records_of(&expected)?;
        let records = trace.interrupt()?.records;
        ensure!(records.len() == 1, "{arguments:?} let {} of 4 calls through", records.len());
    }
    Ok(Verdict::Passed)
}

fn duration(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let arguments = ["report", "--json", "--attach", &context.attach, "--duration", "500ms"];
    let finished = Running::start(&mut pinscope::command(&arguments))?.finish(Duration::from_mins(2))?;
    finished.expect_code(0)?;
    Ok(Verdict::Passed)
}

/// Calls that continue for longer than any of the sessions beside them.
struct Storm(Child);

impl Storm {
    fn start() -> anyhow::Result<Self> {
        let words = generator(&["storm", "--threads", "2", "--count", "100000000", "--seed", "1"])?;
        let child = Command::new(&words[0]).args(&words[1..]).stdout(Stdio::null()).spawn()?;
        crate::watchdog::adopt(child.id());
        Ok(Self(child))
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sessions end while records keep arriving: by a signal, by the time limit, or when the reader is gone.
fn ends_in_a_storm(context: &Context) -> TestResult {
    /// Time to print the records so far, in an emulated machine.
    const SOON: Duration = Duration::from_secs(10);
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    // A small buffer holds few records. The time limit of the first session also covers what follows.
    let arguments = ["trace", "--json", "--attach", &context.attach, "--buffer", "1"];
    let start = |more: &[&str]| Trace::start_command(&mut pinscope::command(&[&arguments[..], more].concat()));
    let timed = start(&["--duration", "20s"])?;
    let interrupted = start(&[])?;
    // Nothing is printed, so no write can reveal that the reader is gone.
    let mut unread = pinscope::command(&[&arguments[..], &["--min-duration", "1h"]].concat()).spawn()?;
    crate::watchdog::adopt(unread.id());
    let mut reader = BufReader::new(unread.stdout.take().context("no pipe")?);
    reader.read_line(&mut String::new())?;

    let storm = Storm::start()?;
    thread::sleep(Duration::from_millis(500));
    drop(reader);
    Running::adopt(unread).finish(SOON).context("after its pipe was closed")?.expect_code(0)?;
    let ended = interrupted.interrupt()?;
    ensure!(!ended.records.is_empty(), "no storm");
    ended.finished.expect_code(0)?;
    timed.ended(SOON + Duration::from_secs(20))?.finished.expect_code(0)?;
    drop(storm);
    Ok(Verdict::Passed)
}

/// A step of the wall clock, by `settimeofday` or a suspend: later lines have the new time.
fn follows_the_wall_clock(context: &Context) -> TestResult {
    const STEP: i64 = 2 * 3600;
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let mut space = Space::new(PAGE);
    let buffers = page(&mut space)?;
    let trace = Trace::start(context, &["--pid", &std::process::id().to_string()])?;
    let ring = Ring::new()?;
    let mut calls = vec![perform(context, &ring, Request::Register(&buffers))?];
    trace.records_of(&calls)?;
    clock::step(STEP)?;
    let begin = clock::wall();
    let call = perform(context, &ring, Request::Unregister);
    let end = clock::wall();
    let records = call.and_then(|call| {
        calls.push(call);
        trace.records_of(&calls)
    });
    clock::step(-STEP)?;
    let records = records?;
    trace.interrupt()?.finished.expect_code(0)?;
    let [first, second] = [0, 1].map(|number: usize| records[number].time.clone().unwrap_or_default());
    ensure!(first < begin, "{first}: the step to {begin} came after it");
    // The two clocks are read one after the other.
    ensure!(
        begin[..21] <= second[..21] && second[..21] <= end[..21],
        "{second}, and the call was from {begin} to {end}"
    );
    Ok(Verdict::Passed)
}

/// A terminal shows when the session is attached, and the progress shown before is erased.
fn on_a_terminal(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let (mut ours, theirs) = terminal()?;
    let mut command = pinscope::command(&["report", "--attach", &context.attach, "--duration", "500ms"]);
    command.env("TERM", "linux");
    let running = Running::start(command.stderr(Stdio::from(theirs)))?;
    // The command holds the other end open here, in addition to the program.
    drop(command);
    let mut shown = Vec::new();
    let mut chunk = [0; 4096];
    // Reading from a terminal whose other end is closed returns an error.
    while let Ok(count @ 1..) = ours.read(&mut chunk) {
        shown.extend_from_slice(&chunk[..count]);
    }
    running.finish(Duration::from_secs(10))?.expect_code(0)?;
    let shown = String::from_utf8(shown)?;
    println!("    {shown:?}");
    let last = shown.rsplit("\r\x1b[K").next().unwrap_or_default();
    let attached = "pinscope: attached; the end of 500ms or Ctrl-C ends the session and prints the report\r\n";
    ensure!(last == attached, "{shown:?}");
    Ok(Verdict::Passed)
}

/// A service prints its address on a terminal, without control sequences.
fn service_on_a_terminal(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let (mut ours, theirs) = terminal()?;
    let mut command = pinscope::command(&["daemon", "--attach", &context.attach, "--listen", "127.0.0.1:9758"]);
    let running = Running::start(command.env("TERM", "dumb").stderr(Stdio::from(theirs)))?;
    drop(command);
    let mut shown = String::new();
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = ours.read(&mut chunk) {
        shown.push_str(&String::from_utf8_lossy(&chunk[..count]));
        if shown.contains("Ctrl-C ends it\r\n") {
            break;
        }
    }
    println!("    {shown:?}");
    let last = shown.lines().last();
    ensure!(last == Some("pinscope: serving http://127.0.0.1:9758/; Ctrl-C ends it"), "{shown:?}");
    ensure!(!shown.contains('\x1b'), "{shown:?}");
    running.signal(libc::SIGINT);
    running.finish(Duration::from_secs(10))?.expect_code(0)?;
    Ok(Verdict::Passed)
}

/// Both ends of a new terminal.
fn terminal() -> anyhow::Result<(File, OwnedFd)> {
    let (mut ours, mut theirs) = (0, 0);
    // SAFETY: two places for descriptors; name, settings and size are not requested.
    let opened = unsafe {
        libc::openpty(&raw mut ours, &raw mut theirs, std::ptr::null_mut(), std::ptr::null(), std::ptr::null())
    };
    ensure!(opened == 0, "openpty: {}", std::io::Error::last_os_error());
    // SAFETY: two new descriptors without another owner.
    Ok(unsafe { (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) })
}
