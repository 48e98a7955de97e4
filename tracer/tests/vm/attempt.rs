//! One call made by a test, with all facts about it at that time.

use std::fs;

use crate::{
    clock,
    context::Context,
    errno::result_name,
    filesystem::Filesystems,
    maps::{self, Layout},
    ring::{Answer, Buffer, Request, Ring},
};

/// A call, the memory of its buffers, and the kernel's answer.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Name of the operation.
    pub operation: &'static str,
    /// Thread id.
    pub tid: u32,
    /// Process id.
    pub pid: u32,
    /// Name of the thread.
    pub comm: String,
    /// File descriptor of the ring.
    pub ring_fd: i32,
    /// Our clock before and after the creation of the ring.
    pub ring_created_ns: (u64, u64),
    /// Number of buffers requested, for operations that state one.
    pub requested: Option<u64>,
    /// The buffers, each with its layout in /proc/self/maps just before the call.
    pub buffers: Vec<(Buffer, Layout)>,
    /// The kernel's answer.
    pub answer: Answer,
    /// Minor and major faults of this thread during the call.
    pub faults: (u64, u64),
}

impl Attempt {
    /// Name of the call's result. A partial update returns the number of buffers that it processed.
    pub fn result(&self) -> String {
        let short = self.operation == "update" && (0..self.buffers.len() as i64).contains(&self.answer.ret);
        if short { "partial".to_owned() } else { result_name(self.answer.ret) }
    }
}

/// Makes the call, after reading /proc/self/maps.
pub fn perform(context: &Context, ring: &Ring, request: Request<'_>) -> anyhow::Result<Attempt> {
    perform_by(&context.filesystems, ring, request, |ring, request| Ok(ring.call(request)))
}

/// Like [`perform`], with another way to make the call.
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
