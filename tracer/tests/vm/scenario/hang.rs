//! Scenarios whose calls block for as long as the test wants.

use std::{
    io::{self, Write as _},
    os::fd::OwnedFd,
    thread,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use serde_json::json;

use super::{Options, work::Work};
use crate::{
    fault::Held,
    ring::{self, Answer, Buffer, Request, Ring},
    space::{Kind, Space},
    sys::PAGE,
};

const LENGTH: u64 = 4 * PAGE;

fn buffer(space: &mut Space) -> anyhow::Result<Buffer> {
    Ok(Buffer { address: space.map(Kind::Anon, LENGTH)?, length: LENGTH })
}

fn tell(work: &mut Work, operation: &str, answer: Answer) {
    let Answer { ret, started_ns, ended_ns } = answer;
    work.tell(operation, json!({ "ret": ret, "started_ns": started_ns, "ended_ns": ended_ns }));
}

fn time(options: &Options) -> Duration {
    Duration::from_secs(options.seconds.unwrap_or(3))
}

/// The register blocks on a page in its pin while it holds the ring's lock; the unregister waits for the lock.
pub fn held_ring(options: &Options, work: &mut Work) -> anyhow::Result<()> {
    let mut space = Space::new(LENGTH);
    let buffer = buffer(&mut space)?;
    let held = Held::over(buffer.address, buffer.length).context("userfaultfd(2)")?;
    let ring = Ring::new()?;
    let fd = ring.fd();
    let (register, unregister) = thread::scope(|scope| {
        let register = scope.spawn(|| ring::call_on(fd, Request::Register(&[buffer])));
        thread::sleep(Duration::from_millis(200));
        let unregister = scope.spawn(|| ring::call_on(fd, Request::Unregister));
        thread::sleep(time(options));
        held.release().context("UFFDIO_ZEROPAGE")?;
        let done = |_| anyhow!("a thread panicked");
        anyhow::Ok((register.join().map_err(done)?, unregister.join().map_err(done)?))
    })?;
    tell(work, "register", register);
    tell(work, "unregister", unregister);
    Ok(())
}

/// The unregister waits for a pending read into the buffer, up to 6.12.
pub fn pending_read(options: &Options, work: &mut Work) -> anyhow::Result<()> {
    let mut space = Space::new(LENGTH);
    let buffer = buffer(&mut space)?;
    let (reader, mut writer) = io::pipe()?;
    let mut ring = Ring::new()?;
    let register = ring.call(Request::Register(&[buffer]));
    ring.begin_fixed_read(&OwnedFd::from(reader), buffer)?;
    let fd = ring.fd();
    let unregister = thread::scope(|scope| {
        let unregister = scope.spawn(|| ring::call_on(fd, Request::Unregister));
        thread::sleep(time(options));
        writer.write_all(b"x")?;
        unregister.join().map_err(|_| anyhow!("a thread panicked"))
    })?;
    tell(work, "register", register);
    tell(work, "unregister", unregister);
    Ok(())
}
