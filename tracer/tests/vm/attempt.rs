//! One call of ours, with everything that was true of it at the time.

use std::fs;

use crate::{
    clock,
    context::Context,
    errno::result_name,
    filesystem::Filesystems,
    maps::{self, Layout},
    ring::{Answer, Buffer, Request, Ring},
};

/// A call, what lay behind it, and what the kernel answered.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Name of the operation.
    pub operation: &'static str,
    /// The thread.
    pub tid: u32,
    /// The process.
    pub pid: u32,
    /// The thread's name.
    pub comm: String,
    /// The ring.
    pub ring_fd: i32,
    /// The ring's making, by our clock: before and after.
    pub ring_created_ns: (u64, u64),
    /// Buffers asked for, where the operation says.
    pub requested: Option<u64>,
    /// The buffers, and what /proc/self/maps showed under each right before.
    pub buffers: Vec<(Buffer, Layout)>,
    /// The answer.
    pub answer: Answer,
    /// Minor and major faults that this thread took around the call.
    pub faults: (u64, u64),
}

impl Attempt {
    /// The call's result: an update that did some of what it was asked for returns how much.
    pub fn result(&self) -> String {
        let short = self.operation == "update" && (0..self.buffers.len() as i64).contains(&self.answer.ret);
        if short { "partial".to_owned() } else { result_name(self.answer.ret) }
    }
}

/// Does what is asked, having looked at /proc/self/maps right before.
pub fn perform(context: &Context, ring: &Ring, request: Request<'_>) -> anyhow::Result<Attempt> {
    perform_by(&context.filesystems, ring, request, |ring, request| Ok(ring.call(request)))
}

/// The same, with another way to make the call.
pub fn perform_by(
    filesystems: &Filesystems,
    ring: &Ring,
    request: Request<'_>,
    call: impl FnOnce(&Ring, Request<'_>) -> anyhow::Result<Answer>,
) -> anyhow::Result<Attempt> {
    let vmas = if request.buffers().is_empty() { Vec::new() } else { maps::read()? };
    let layout = |buffer: &Buffer| maps::layout(&vmas, filesystems, buffer.address, buffer.length);
    let buffers = request.buffers().iter().map(|buffer| (*buffer, layout(buffer))).collect();
    let comm = fs::read_to_string("/proc/thread-self/comm")?.trim_end().to_owned();
    let before = clock::faults();
    let answer = call(ring, request)?;
    let after = clock::faults();
    Ok(Attempt {
        operation: request.operation(),
        tid: clock::thread_id(),
        pid: std::process::id(),
        comm,
        ring_fd: ring.fd(),
        ring_created_ns: ring.created_ns,
        requested: request.requested(),
        buffers,
        answer,
        faults: (after.0 - before.0, after.1 - before.1),
    })
}
