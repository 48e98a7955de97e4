//! Every operation on a table of buffers, and every refusal unrelated to memory.

use anyhow::{Context as _, ensure};

use super::{check_records, ready, without_tracer};
use crate::{
    attempt::{Attempt, perform, perform_by},
    context::Context,
    errno::result_name,
    kernel::Version,
    protocol::{Test, TestResult, Verdict},
    ring::{Buffer, EMPTY, Request, Ring},
    space::{Kind, Space},
    sys::PAGE,
    trace::Trace,
};

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("operations_register2", register2),
        Test::new("operations_refused_in_the_function", refused),
        Test::new("operations_refused_early", refused_early),
        Test::new("operations_sparse", sparse),
        Test::new("operations_update", update),
        Test::new("operations_too_long", too_long),
        Test::new("operations_clone", clone),
        Test::new("operations_registered_ring", registered_ring),
        Test::new("operations_bad_fd_makes_no_record", bad_fd),
        Test::new("operations_ring_age", ring_age),
    ]
}

/// A sequence of calls on one ring, each with its expected answer.
struct Sequence<'a> {
    context: &'a Context,
    calls: Vec<(Attempt, Option<usize>)>,
}

impl<'a> Sequence<'a> {
    fn start(context: &'a Context) -> anyhow::Result<Self> {
        ready(context)?;
        Ok(Self { context, calls: Vec::new() })
    }

    fn expect(
        &mut self,
        ring: &Ring,
        request: Request<'_>,
        result: &str,
        failed_at: Option<usize>,
    ) -> anyhow::Result<()> {
        let attempt = perform(self.context, ring, request)?;
        let got = result_name(attempt.answer.ret);
        ensure!(got == result, "{} was answered {got}, not {result}: {request:?}", attempt.operation);
        self.calls.push((attempt, failed_at));
        Ok(())
    }

    fn check(self) -> TestResult {
        check_records(self.context, &self.calls)?;
        Ok(Verdict::Passed)
    }
}

fn register2(context: &Context) -> TestResult {
    let mut space = Space::new(16 * PAGE);
    let address = space.map_split(4)?;
    let hole = space.hole(PAGE)?;
    let ring = Ring::new()?;
    let mut calls = Sequence::start(context)?;
    let good = [Buffer { address, length: PAGE }, Buffer { address: address + PAGE, length: 2 * PAGE }];
    calls.expect(&ring, Request::Register2(&good), "ok", None)?;
    calls.expect(&ring, Request::Unregister, "ok", None)?;
    let bad = [good[0], Buffer { address: hole, length: PAGE }, good[1]];
    calls.expect(&ring, Request::Register2(&bad), "EFAULT", Some(1))?;
    calls.check()
}

fn refused(context: &Context) -> TestResult {
    let mut space = Space::new(16 * PAGE);
    let good = [Buffer { address: space.map(Kind::Anon, PAGE)?, length: PAGE }];
    let ring = Ring::new()?;
    let mut calls = Sequence::start(context)?;
    calls.expect(&ring, Request::Unregister, "ENXIO", None)?;
    calls.expect(&ring, Request::Update(0, &good), "ENXIO", None)?;
    calls.expect(&ring, Request::Register(&good), "ok", None)?;
    // The kernel checks the table before it looks at a buffer.
    let mut busy = perform(context, &ring, Request::Register(&good))?;
    ensure!(result_name(busy.answer.ret) == "EBUSY", "a second table was answered {}", busy.answer.ret);
    busy.buffers.clear();
    calls.calls.push((busy, None));
    calls.expect(&ring, Request::Unregister, "ok", None)?;
    calls.expect(&ring, Request::Unregister, "ENXIO", None)?;
    let mut none = perform(context, &ring, Request::Register(&[]))?;
    ensure!(result_name(none.answer.ret) == "EINVAL", "an empty table was answered {}", none.answer.ret);
    none.requested = Some(0);
    calls.calls.push((none, None));
    calls.check()
}

/// Refused by the system call before the function: only the ledger sees the calls, and the record marks what it does
/// not know.
fn refused_early(context: &Context) -> TestResult {
    ready(context)?;
    let ring = Ring::new()?;
    let mut attempts = Vec::new();
    // No argument; an argument where none is allowed; a struct of the wrong size.
    let mut refused =
        vec![(Request::Bare(0, 1), "EFAULT"), (Request::Bare(1, 1), "EINVAL"), (Request::Bare(15, 7), "EINVAL")];
    if context.kernel.version < Version(5, 12) {
        // Here the function itself checks the argument.
        refused.remove(0);
    }
    for (request, result) in refused {
        let attempt = perform(context, &ring, request)?;
        let got = result_name(attempt.answer.ret);
        ensure!(got == result, "{request:?} was answered {got}, not {result}");
        attempts.push(attempt);
    }
    if !context.traces() {
        return Ok(Verdict::Passed);
    }
    for (attempt, record) in attempts.iter().zip(context.session()?.records_of(&attempts)?) {
        let what = attempt.operation;
        ensure!(record.result == result_name(attempt.answer.ret), "{what}: result {}", record.result);
        ensure!(record.pid == attempt.pid && record.comm == attempt.comm, "{what}: another process");
        let unknown = [record.buffers, record.bytes, record.vmas, record.files, record.duration_ns, record.pin_ns];
        ensure!(unknown.iter().all(Option::is_none), "{what}: figures of what did not happen: {record:?}");
        ensure!(record.buffer_list.is_empty(), "{what}: buffers of what did not happen");
    }
    Ok(Verdict::Passed)
}

fn sparse(context: &Context) -> TestResult {
    if let Some(why) = context.kernel.lacks("sparse tables", Version(5, 19)) {
        return Ok(Verdict::Ignored(why));
    }
    let mut space = Space::new(64 * PAGE);
    let address = space.map_split(8)?;
    let hole = space.hole(PAGE)?;
    let slot = |page: u64| Buffer { address: address + page * PAGE, length: PAGE };
    let ring = Ring::new()?;
    let mut calls = Sequence::start(context)?;
    calls.expect(&ring, Request::Sparse(32), "ok", None)?;
    calls.expect(&ring, Request::Update(3, &[slot(0), slot(1), slot(2)]), "ok", None)?;
    calls.expect(&ring, Request::Update(3, &[slot(5)]), "ok", None)?;
    calls.expect(&ring, Request::Update(31, &[Buffer { address: hole, length: PAGE }]), "EFAULT", Some(0))?;
    // The first two slots are processed before the third is refused: the result is 2, and one buffer failed.
    calls.expect(&ring, Request::Update(8, &[slot(6), slot(7), Buffer { address: hole, length: 1 }]), "ok", Some(2))?;
    calls.expect(&ring, Request::Update(30, &[slot(0), slot(1), slot(2)]), "EINVAL", None)?;
    calls.calls.last_mut().context("no call")?.0.buffers.clear();
    calls.expect(&ring, Request::Unregister, "ok", None)?;
    calls.check()
}

fn update(context: &Context) -> TestResult {
    let mut space = Space::new(64 * PAGE);
    let address = space.map_split(8)?;
    let memfd = space.map(Kind::Memfd, 4 * PAGE)?;
    let ring = Ring::new()?;
    let mut calls = Sequence::start(context)?;
    let first: Vec<Buffer> = (0..4).map(|page| Buffer { address: address + page * PAGE, length: PAGE }).collect();
    calls.expect(&ring, Request::Register(&first), "ok", None)?;
    let next = [Buffer { address: memfd, length: 3 * PAGE }, Buffer { address: address + 4 * PAGE, length: 4 * PAGE }];
    calls.expect(&ring, Request::Update(1, &next), "ok", None)?;
    calls.expect(&ring, Request::Update(0, &[EMPTY]), "ok", None)?;
    calls.expect(&ring, Request::Update(0, &[next[0]]), "ok", None)?;
    calls.expect(&ring, Request::Unregister, "ok", None)?;
    calls.check()
}

/// Refused for its size: the kernel does not look at its memory, whatever it is.
fn too_long(context: &Context) -> TestResult {
    let mut space = Space::new(16 * PAGE);
    let good = Buffer { address: space.map(Kind::Anon, 4 * PAGE)?, length: 4 * PAGE };
    let long = Buffer { length: 1 << 62, ..good };
    let ring = Ring::new()?;
    let mut calls = Sequence::start(context)?;
    // The errno differs between kernels.
    for (list, place) in [(&[long][..], 0), (&[good, long], 1)] {
        let attempt = perform(context, &ring, Request::Register(list))?;
        ensure!(attempt.answer.ret < 0, "{list:?} was answered {}", attempt.answer.ret);
        calls.calls.push((attempt, Some(place)));
    }
    if context.traces() {
        let attempts: Vec<_> = calls.calls.iter().map(|(attempt, _)| attempt.clone()).collect();
        let walks = context.kernel.can_be_walked();
        for (record, vmas) in context.session()?.records_of(&attempts)?.iter().zip([0, 1]) {
            let reached = record.buffer_list.last().is_some_and(|buffer| buffer.length == long.length);
            let told = if walks { Some(vmas) } else { None };
            ensure!(!reached || record.vmas == told, "{:?} VMAs, expected {told:?}: {record:?}", record.vmas);
            ensure!(record.bytes_registered == Some(0), "registered: {record:?}");
        }
    }
    calls.check()
}

fn clone(context: &Context) -> TestResult {
    if let Some(why) = context.kernel.lacks("IORING_REGISTER_CLONE_BUFFERS", Version(6, 12)) {
        return Ok(Verdict::Ignored(why));
    }
    let mut space = Space::new(64 * PAGE);
    let good = [Buffer { address: space.map_split(8)?, length: 8 * PAGE }];
    let (source, target) = (Ring::new()?, Ring::new()?);
    let mut calls = Sequence::start(context)?;
    calls.expect(&target, Request::Clone(source.fd()), "ENXIO", None)?;
    calls.expect(&source, Request::Register(&good), "ok", None)?;
    calls.expect(&target, Request::Clone(source.fd()), "ok", None)?;
    calls.expect(&target, Request::Clone(source.fd()), "EBUSY", None)?;
    calls.expect(&source, Request::Unregister, "ok", None)?;
    calls.expect(&target, Request::Unregister, "ok", None)?;
    calls.check()
}

/// With the opcode's top bit set, the fd is an index; the operation is the same.
fn registered_ring(context: &Context) -> TestResult {
    if let Some(why) = context.kernel.lacks("io_uring_register by a registered ring", Version(6, 3)) {
        return Ok(Verdict::Ignored(why));
    }
    ready(context)?;
    let mut space = Space::new(4 * PAGE);
    let buffers = [Buffer { address: space.map(Kind::Anon, PAGE)?, length: PAGE }];
    let ring = Ring::new()?;
    let call = |ring: &Ring, request: Request<'_>| ring.call_registered(request).context("registering the ring itself");
    let attempt = perform_by(&context.filesystems, &ring, Request::Register(&buffers), call)?;
    ensure!(attempt.answer.ret == 0, "answered {}", attempt.answer.ret);
    check_records(context, &[(attempt, None)])?;
    Ok(Verdict::Passed)
}

/// The kernel's tracepoint does not see a call on a descriptor that is no ring, and pinscope records no registration
/// for it.
fn bad_fd(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let pid = std::process::id().to_string();
    let trace = Trace::start(context, &["--pid", &pid])?;
    // SAFETY: the fd is refused before the argument is read.
    let ret = unsafe { libc::syscall(libc::SYS_io_uring_register, 0x7fff_0000, 0, 0, 0) };
    ensure!(ret == -1, "a call on no ring was answered {ret}");
    let ended = trace.interrupt()?;
    ensure!(ended.records.is_empty(), "{:?}", ended.records);
    Ok(Verdict::Passed)
}

/// fd and age of a ring are known if it was created during the session; otherwise they are unknown, not zero.
fn ring_age(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let mut space = Space::new(4 * PAGE);
    let buffers = [Buffer { address: space.map(Kind::Anon, PAGE)?, length: PAGE }];
    let before = Ring::new()?;
    let pid = std::process::id().to_string();
    let trace = Trace::start(context, &["--pid", &pid])?;
    let after = Ring::new()?;
    let mut calls = Vec::new();
    for ring in [&before, &after, &after, &before] {
        calls.push(perform(context, ring, Request::Register(&buffers))?);
        perform(context, ring, Request::Unregister)?;
    }
    let records = trace.records_of(&calls)?;
    let seen: Vec<_> =
        records.iter().map(|record| record.ring.as_ref().map(|ring| (ring.fd, ring.age_ns.is_some()))).collect();
    let (old, new) = (Some((None, false)), Some((Some(after.fd()), true)));
    ensure!(seen == [old, new, new, old], "rings: {seen:?}");
    let ids: Vec<_> = records.iter().filter_map(|record| record.ring.as_ref().map(|ring| ring.id)).collect();
    ensure!(ids[0] == ids[3] && ids[1] == ids[2] && ids[0] != ids[1], "ids of two rings: {ids:?}");
    trace.interrupt()?.finished.expect_code(0)?;
    Ok(Verdict::Passed)
}
