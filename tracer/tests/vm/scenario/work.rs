//! Operations of a scenario; every call is recorded.

use std::{collections::BTreeMap, os::fd::OwnedFd};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::{
    account::{Account, Call, RingUsed, Under},
    table::Table,
};
use crate::{
    clock,
    errno::result_name,
    filesystem::Filesystems,
    kernel::Kernel,
    maps::{self, Backing, Vma},
    ring::{Buffer, EMPTY, Request, Ring},
    space::Space,
    sys::{self, PAGE},
};

/// Rings, calls and I/O of a scenario, all recorded.
pub struct Work {
    /// The kernel under test.
    pub kernel: Kernel,
    filesystems: Filesystems,
    vmas: Vec<Vma>,
    file: OwnedFd,
    rings: Vec<Used>,
    account: Account,
    /// Buffers, VMAs and bytes by backing.
    backings: BTreeMap<Backing, (u64, u64, u64)>,
}

/// A ring and the number of its requests.
struct Used {
    ring: Ring,
    requests: u64,
    table: Table,
}

impl Work {
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            kernel: Kernel::read()?,
            filesystems: Filesystems::read()?,
            vmas: Vec::new(),
            file: sys::memfd_of(0, PAGE)?,
            rings: Vec::new(),
            account: Account { started_ns: clock::monotonic(), ..Account::default() },
            backings: BTreeMap::new(),
        })
    }

    /// Creates a ring. Returns its index here.
    pub fn ring(&mut self) -> anyhow::Result<usize> {
        let ring = Ring::new().context("io_uring_setup")?;
        self.rings.push(Used { ring, requests: 0, table: Table::default() });
        Ok(self.rings.len() - 1)
    }

    pub fn fd(&self, ring: usize) -> i32 {
        self.rings[ring].ring.fd()
    }

    /// Adds a figure that only this scenario has.
    pub fn tell(&mut self, what: &str, value: impl Into<Value>) {
        self.account.more.insert(what.to_owned(), value.into());
    }

    /// Reads /proc/self/maps. To be called after mapping the buffers of the next calls.
    pub fn survey(&mut self) -> anyhow::Result<()> {
        self.vmas = maps::read()?;
        Ok(())
    }

    /// Makes a call. Returns the name of its result.
    pub fn call(&mut self, ring: usize, request: Request<'_>) -> String {
        let mut call = self.look(ring, request);
        let before = clock::faults().0;
        let answer = self.rings[ring].ring.call(request);
        call.minor_faults = clock::faults().0 - before;
        (call.ret, call.started_ns, call.ended_ns) = (answer.ret, answer.started_ns, answer.ended_ns);
        call.result = result_name(answer.ret);
        let of = |fd: i32| self.rings.iter().find(|used| used.ring.fd() == fd).map(|used| used.table.held.clone());
        let source = if let Request::Clone(fd) = request { of(fd) } else { None };
        (call.kind, call.switched) = self.rings[ring].table.change(request, answer.ret, source.unwrap_or_default());
        let result = call.result.clone();
        self.account.add(call);
        result
    }

    /// Makes a call whose result is known.
    pub fn expect(&mut self, ring: usize, request: Request<'_>, expected: &str) -> anyhow::Result<()> {
        let result = self.call(ring, request);
        let operation = request.operation();
        ensure!(result == expected, "{operation}: {result} instead of {expected} on {}", self.kernel.release);
        Ok(())
    }

    /// Makes a call that must succeed.
    pub fn ok(&mut self, ring: usize, request: Request<'_>) -> anyhow::Result<()> {
        self.expect(ring, request, "ok")
    }

    /// Alternately writes and reads pages of a file with the registered buffers.
    pub fn fixed(&mut self, ring: usize, buffers: &[Buffer], count: u64) -> anyhow::Result<()> {
        for (request, (index, buffer)) in (0..count).zip(buffers.iter().enumerate().cycle()) {
            let length = buffer.length.min(PAGE);
            let done = self.rings[ring].ring.fixed_io(&self.file, buffer.address, length, index, request % 2 == 0)?;
            self.rings[ring].requests += 1;
            ensure!(done as u64 == length, "a request with a registered buffer returned {done}");
        }
        Ok(())
    }

    /// Makes requests that do nothing.
    pub fn nops(&mut self, ring: usize, count: u64) -> anyhow::Result<()> {
        for _ in 0..count {
            self.rings[ring].ring.nop()?;
            self.rings[ring].requests += 1;
        }
        Ok(())
    }

    /// Repeatedly maps new memory, registers it and unregisters it. `prepare` maps the given number of bytes.
    pub fn again(
        &mut self,
        (count, pages): (u64, u64),
        expected: &str,
        prepare: impl Fn(&mut Space, u64) -> anyhow::Result<u64>,
    ) -> anyhow::Result<()> {
        let ring = self.ring()?;
        let length = pages * PAGE;
        for _ in 0..count {
            let mut space = Space::new(length);
            let buffers = [Buffer { address: prepare(&mut space, length)?, length }];
            self.survey()?;
            self.expect(ring, Request::Register(&buffers), expected)?;
            if expected == "ok" {
                self.ok(ring, Request::Unregister)?;
            }
        }
        Ok(())
    }

    /// Determines the memory under the buffers of a call before it is made.
    fn look(&mut self, ring: usize, request: Request<'_>) -> Call {
        let mut call = Call {
            ring,
            operation: request.operation().to_owned(),
            requests_before: self.rings[ring].requests,
            buffers: request.buffers().len() as u64,
            ..Call::default()
        };
        let filled = request.buffers().iter().filter(|buffer| **buffer != EMPTY);
        let layout = |buffer: &Buffer| maps::layout(&self.vmas, &self.filesystems, buffer.address, buffer.length);
        let layouts: Vec<_> = filled.clone().map(layout).collect();
        call.bytes = filled.map(|buffer| buffer.length).sum();
        call.vmas = maps::touched(&layouts);
        for layout in layouts {
            call.buffers_vmas += layout.vmas;
            call.single_vma_buffers += u64::from(layout.vmas == 1);
            call.most_vmas = call.most_vmas.max(layout.vmas);
            call.most_files = call.most_files.max(layout.files.len() as u64);
            for (backing, size) in layout.backings {
                let under = self.backings.entry(backing).or_default();
                under.0 += 1;
                under.1 += size.vmas;
                under.2 += size.bytes;
            }
        }
        call
    }

    /// The account, when all calls are done.
    pub fn account(self, scenario: &str, cured: bool) -> Account {
        let of_ring = |used: &Used| {
            let Used { ring, requests, .. } = used;
            RingUsed { fd: ring.fd(), created_ns: ring.created_ns, requests: *requests }
        };
        let under = |(backing, (buffers, vmas, bytes))| Under { backing, buffers, vmas, bytes };
        Account {
            scenario: scenario.to_owned(),
            cured,
            pid: std::process::id(),
            uid: sys::user(),
            ended_ns: clock::monotonic(),
            rings: self.rings.iter().map(of_ring).collect(),
            backings: self.backings.into_iter().map(under).collect(),
            ..self.account
        }
    }
}
