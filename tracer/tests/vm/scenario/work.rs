//! What a scenario does, and the account of it.

use std::{collections::BTreeMap, os::fd::OwnedFd};

use anyhow::{Context as _, ensure};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    clock,
    errno::result_name,
    filesystem::Filesystems,
    kernel::Kernel,
    maps::{self, Backing, Vma},
    ring::{Buffer, EMPTY, Request, Ring},
    space::Space,
    sys::{self, PAGE},
    tally::Tally,
};

/// Rings, calls and I/O under way, all of them written down.
pub struct Work {
    /// The kernel under test.
    pub kernel: Kernel,
    /// What only one scenario has to tell.
    pub more: Map<String, Value>,
    filesystems: Filesystems,
    vmas: Vec<Vma>,
    file: OwnedFd,
    rings: Vec<Used>,
    calls: Vec<Call>,
    backings: BTreeMap<Backing, Under>,
    started_ns: u64,
}

/// A ring and the requests that went through it.
struct Used {
    ring: Ring,
    requests: u64,
}

/// One io_uring_register(2), by our own clocks and by /proc/self/maps.
#[derive(Debug, Serialize)]
struct Call {
    ring: usize,
    operation: &'static str,
    result: String,
    ret: i64,
    started_ns: u64,
    ended_ns: u64,
    /// I/O requests that the ring had completed before.
    requests_before: u64,
    buffers: u64,
    bytes: u64,
    vmas: u64,
    single_vma_buffers: u64,
    most_vmas: u64,
    most_files: u64,
    minor_faults: u64,
}

/// What lay under all buffers together, accepted or refused.
#[derive(Default)]
struct Under {
    buffers: u64,
    vmas: u64,
    bytes: u64,
}

impl Work {
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            kernel: Kernel::read()?,
            more: Map::new(),
            filesystems: Filesystems::read()?,
            vmas: Vec::new(),
            file: sys::memfd_of(0, PAGE)?,
            rings: Vec::new(),
            calls: Vec::new(),
            backings: BTreeMap::new(),
            started_ns: clock::monotonic(),
        })
    }

    /// Makes a ring; gives its number here.
    pub fn ring(&mut self) -> anyhow::Result<usize> {
        let ring = Ring::new().context("io_uring_setup")?;
        self.rings.push(Used { ring, requests: 0 });
        Ok(self.rings.len() - 1)
    }

    pub fn fd(&self, ring: usize) -> i32 {
        self.rings[ring].ring.fd()
    }

    /// Reads /proc/self/maps: to be called when the buffers to come are mapped.
    pub fn survey(&mut self) -> anyhow::Result<()> {
        self.vmas = maps::read()?;
        Ok(())
    }

    /// Makes a call; gives the name of its result.
    pub fn call(&mut self, ring: usize, request: Request<'_>) -> String {
        let mut call = self.look(ring, request);
        let before = clock::faults().0;
        let answer = self.rings[ring].ring.call(request);
        call.minor_faults = clock::faults().0 - before;
        (call.ret, call.started_ns, call.ended_ns) = (answer.ret, answer.started_ns, answer.ended_ns);
        call.result = result_name(answer.ret);
        let result = call.result.clone();
        self.calls.push(call);
        result
    }

    /// Makes a call whose result is known.
    pub fn expect(&mut self, ring: usize, request: Request<'_>, expected: &str) -> anyhow::Result<()> {
        let result = self.call(ring, request);
        let operation = request.operation();
        ensure!(result == expected, "{operation}: {result} instead of {expected} on {}", self.kernel.release);
        Ok(())
    }

    /// Makes a call that has to succeed.
    pub fn ok(&mut self, ring: usize, request: Request<'_>) -> anyhow::Result<()> {
        self.expect(ring, request, "ok")
    }

    /// Writes and reads pages of a file by turns, with the registered buffers.
    pub fn fixed(&mut self, ring: usize, buffers: &[Buffer], count: u64) -> anyhow::Result<()> {
        for (request, (index, buffer)) in (0..count).zip(buffers.iter().enumerate().cycle()) {
            let length = buffer.length.min(PAGE);
            let done = self.rings[ring].ring.fixed_io(&self.file, buffer.address, length, index, request % 2 == 0)?;
            self.rings[ring].requests += 1;
            ensure!(done as u64 == length, "a request with a registered buffer gives {done}");
        }
        Ok(())
    }

    /// Requests that do nothing.
    pub fn nops(&mut self, ring: usize, count: u64) -> anyhow::Result<()> {
        for _ in 0..count {
            self.rings[ring].ring.nop()?;
            self.rings[ring].requests += 1;
        }
        Ok(())
    }

    /// Registers memory that is fresh each time and then lets go of it; `prepare` maps as many bytes as it is told.
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

    /// What lies under the buffers of a call to come.
    fn look(&mut self, ring: usize, request: Request<'_>) -> Call {
        let mut call = Call {
            ring,
            operation: request.operation(),
            result: String::new(),
            ret: 0,
            started_ns: 0,
            ended_ns: 0,
            requests_before: self.rings[ring].requests,
            buffers: request.buffers().len() as u64,
            bytes: 0,
            vmas: 0,
            single_vma_buffers: 0,
            most_vmas: 0,
            most_files: 0,
            minor_faults: 0,
        };
        for buffer in request.buffers().iter().filter(|buffer| **buffer != EMPTY) {
            let layout = maps::layout(&self.vmas, &self.filesystems, buffer.address, buffer.length);
            call.bytes += buffer.length;
            call.vmas += layout.vmas;
            call.single_vma_buffers += u64::from(layout.vmas == 1);
            call.most_vmas = call.most_vmas.max(layout.vmas);
            call.most_files = call.most_files.max(layout.files.len() as u64);
            for (backing, share) in layout.backings {
                let under = self.backings.entry(backing).or_default();
                under.buffers += 1;
                under.vmas += share.vmas;
                under.bytes += share.bytes;
            }
        }
        call
    }

    /// The account: what was done, by whom, and what the kernel answered.
    pub fn account(&self, name: &str, cured: bool) -> Value {
        let mut results = Tally::default();
        let mut calls_ns = BTreeMap::<_, u64>::new();
        for call in &self.calls {
            results.add(call.operation, &call.result, 1);
            *calls_ns.entry(call.operation).or_default() += call.ended_ns - call.started_ns;
        }
        let sum = |of: fn(&Call) -> u64| self.calls.iter().map(of).sum::<u64>();
        let most = |of: fn(&Call) -> u64| self.calls.iter().map(of).max().unwrap_or(0);
        let of_ring = |used: &Used| json!({ "fd": used.ring.fd(), "created_ns": used.ring.created_ns, "requests": used.requests });
        let of_backing = |(backing, under): (&Backing, &Under)| {
            let Under { buffers, vmas, bytes } = under;
            json!({ "backing": backing, "buffers": buffers, "vmas": vmas, "bytes": bytes })
        };
        json!({
            "type": "scenario",
            "name": name,
            "cured": cured,
            "pid": std::process::id(),
            "uid": sys::user(),
            "started_ns": self.started_ns,
            "ended_ns": clock::monotonic(),
            "results": results,
            "failed": results.failed(),
            "buffers": sum(|call| call.buffers),
            "bytes": sum(|call| call.bytes),
            "vmas": sum(|call| call.vmas),
            "single_vma_buffers": sum(|call| call.single_vma_buffers),
            "most_vmas": most(|call| call.most_vmas),
            "most_files": most(|call| call.most_files),
            "minor_faults": sum(|call| call.minor_faults),
            "calls_ns": calls_ns,
            "backings": self.backings.iter().map(of_backing).collect::<Vec<_>>(),
            "rings": self.rings.iter().map(of_ring).collect::<Vec<_>>(),
            "calls": self.calls,
            "more": self.more,
        })
    }
}
