//! A ring, and all operations that change its table of buffers.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd as _, OwnedFd},
};

use anyhow::Context as _;
use io_uring::{IoUring, opcode, squeue, types::Fd};

use crate::{clock, maps::Vma};

/// A range of user memory to register: an `iovec` whose address may be invalid.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Address.
    pub address: u64,
    /// Length in bytes.
    pub length: u64,
}

/// An empty slot.
pub const EMPTY: Buffer = Buffer { address: 0, length: 0 };

/// Requests that change a ring's table.
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// `IORING_REGISTER_BUFFERS`.
    Register(&'a [Buffer]),
    /// `IORING_REGISTER_BUFFERS2`.
    Register2(&'a [Buffer]),
    /// `IORING_REGISTER_BUFFERS2` with `IORING_RSRC_REGISTER_SPARSE`: this number of empty slots (5.19).
    Sparse(u32),
    /// `IORING_REGISTER_BUFFERS_UPDATE`, beginning at this slot.
    Update(u32, &'a [Buffer]),
    /// Like `Update`, with a tag for each buffer.
    TaggedUpdate(u32, &'a [Buffer], &'a [u64]),
    /// `IORING_REGISTER_CLONE_BUFFERS` of the whole table of this ring (6.12).
    Clone(i32),
    /// `IORING_UNREGISTER_BUFFERS`.
    Unregister,
    /// `IORING_REGISTER_PBUF_RING` with this number of entries in our memory (5.19).
    BufferRing(u64, u32),
    /// Any opcode, without an argument and with this count.
    Bare(u32, u32),
}

/// The kernel's answer, with times of our own clock.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// Result; a negative errno on error.
    pub ret: i64,
    /// Clock before the call.
    pub started_ns: u64,
    /// Clock after the call.
    pub ended_ns: u64,
}

const REGISTER_BUFFERS: u32 = 0;
const UNREGISTER_BUFFERS: u32 = 1;
const REGISTER_BUFFERS2: u32 = 15;
const REGISTER_BUFFERS_UPDATE: u32 = 16;
const REGISTER_RING_FDS: u32 = 20;
const UNREGISTER_RING_FDS: u32 = 21;
const REGISTER_PBUF_RING: u32 = 22;
const CLONE_BUFFERS: u32 = 30;
const USE_REGISTERED_RING: u32 = 1 << 31;
const RSRC_REGISTER_SPARSE: u32 = 1;

/// `struct io_uring_rsrc_register`.
#[repr(C)]
#[derive(Default)]
struct RsrcRegister {
    count: u32,
    flags: u32,
    reserved: u64,
    data: u64,
    tags: u64,
}

/// `struct io_uring_rsrc_update2`; the first half is `struct io_uring_rsrc_update`.
#[repr(C)]
#[derive(Default)]
struct RsrcUpdate2 {
    offset: u32,
    reserved: u32,
    data: u64,
    tags: u64,
    count: u32,
    reserved2: u32,
}

/// `struct io_uring_clone_buffers`.
#[repr(C)]
#[derive(Default)]
struct CloneBuffers {
    source: u32,
    flags: u32,
    source_offset: u32,
    offset: u32,
    count: u32,
    reserved: [u32; 3],
}

/// `struct io_uring_buf_reg`.
#[repr(C)]
#[derive(Default)]
struct BufferRing {
    address: u64,
    entries: u32,
    group: u16,
    flags: u16,
    reserved: [u64; 3],
}

impl Request<'_> {
    /// Name of the operation in pinscope's output.
    pub fn operation(&self) -> &'static str {
        match self {
            Self::Register(_) | Self::Register2(_) | Self::Sparse(_) => "register",
            Self::Update(..) | Self::TaggedUpdate(..) => "update",
            Self::Clone(_) => "clone",
            Self::Unregister => "unregister",
            Self::BufferRing(..) => "none",
            Self::Bare(opcode, _) => match opcode & !USE_REGISTERED_RING {
                REGISTER_BUFFERS | REGISTER_BUFFERS2 => "register",
                UNREGISTER_BUFFERS => "unregister",
                REGISTER_BUFFERS_UPDATE => "update",
                CLONE_BUFFERS => "clone",
                _ => "none",
            },
        }
    }

    /// Buffers of the request.
    pub fn buffers(&self) -> &[Buffer] {
        match self {
            Self::Register(buffers)
            | Self::Register2(buffers)
            | Self::Update(_, buffers)
            | Self::TaggedUpdate(_, buffers, _) => buffers,
            Self::Sparse(_) | Self::Clone(_) | Self::Unregister | Self::BufferRing(..) | Self::Bare(..) => &[],
        }
    }

    /// Number of buffers that a register or an update requests.
    pub fn requested(&self) -> Option<u64> {
        match self {
            Self::Register(buffers)
            | Self::Register2(buffers)
            | Self::Update(_, buffers)
            | Self::TaggedUpdate(_, buffers, _) => Some(buffers.len() as u64),
            Self::Sparse(count) => Some(u64::from(*count)),
            _ => None,
        }
    }

    /// Makes the call on a ring's fd, or on its index with the corresponding bit in `bits`.
    fn call(&self, clock: libc::clockid_t, fd: i32, bits: u32) -> Answer {
        match self {
            Self::Register(buffers) => {
                raw(clock, fd, REGISTER_BUFFERS | bits, buffers.as_ptr() as u64, buffers.len() as u32)
            }
            Self::Register2(buffers) => {
                let data = buffers.as_ptr() as u64;
                let argument = RsrcRegister { count: buffers.len() as u32, data, ..Default::default() };
                with(clock, fd, REGISTER_BUFFERS2 | bits, &argument, size_of::<RsrcRegister>() as u32)
            }
            Self::Sparse(count) => {
                let argument = RsrcRegister { count: *count, flags: RSRC_REGISTER_SPARSE, ..Default::default() };
                with(clock, fd, REGISTER_BUFFERS2 | bits, &argument, size_of::<RsrcRegister>() as u32)
            }
            Self::Update(offset, buffers) => {
                let (data, count) = (buffers.as_ptr() as u64, buffers.len() as u32);
                let argument = RsrcUpdate2 { offset: *offset, data, count, ..Default::default() };
                with(clock, fd, REGISTER_BUFFERS_UPDATE | bits, &argument, size_of::<RsrcUpdate2>() as u32)
            }
            Self::TaggedUpdate(offset, buffers, tags) => {
                let (data, tags, count) = (buffers.as_ptr() as u64, tags.as_ptr() as u64, buffers.len() as u32);
                let argument = RsrcUpdate2 { offset: *offset, data, tags, count, ..Default::default() };
                with(clock, fd, REGISTER_BUFFERS_UPDATE | bits, &argument, size_of::<RsrcUpdate2>() as u32)
            }
            Self::Clone(source) => {
                let argument = CloneBuffers { source: *source as u32, ..Default::default() };
                with(clock, fd, CLONE_BUFFERS | bits, &argument, 1)
            }
            Self::Unregister => raw(clock, fd, UNREGISTER_BUFFERS | bits, 0, 0),
            Self::BufferRing(address, entries) => {
                let argument = BufferRing { address: *address, entries: *entries, ..Default::default() };
                with(clock, fd, REGISTER_PBUF_RING | bits, &argument, 1)
            }
            Self::Bare(opcode, count) => raw(clock, fd, *opcode | bits, 0, *count),
        }
    }
}

fn with<T>(clock: libc::clockid_t, fd: i32, opcode: u32, argument: &T, count: u32) -> Answer {
    raw(clock, fd, opcode, std::ptr::from_ref(argument) as u64, count)
}

/// Calls io_uring_register(2) and reads our clock before and after.
fn raw(clock: libc::clockid_t, fd: i32, opcode: u32, argument: u64, count: u32) -> Answer {
    let started_ns = clock::now(clock);
    // SAFETY: none of the opcodes used here writes to user memory; pinning only raises counts of pages.
    let ret = unsafe { libc::syscall(libc::SYS_io_uring_register, fd, opcode, argument, count) };
    let ended_ns = clock::now(clock);
    let ret = if ret < 0 { -i64::from(io::Error::last_os_error().raw_os_error().unwrap_or(0)) } else { ret };
    Answer { ret, started_ns, ended_ns }
}

/// Makes the request on the ring with this fd.
pub fn call_on(fd: i32, request: Request<'_>) -> Answer {
    request.call(libc::CLOCK_MONOTONIC, fd, 0)
}

/// A ring.
pub struct Ring {
    ring: IoUring,
    /// `CLOCK_MONOTONIC` before and after its creation.
    pub created_ns: (u64, u64),
}

impl Ring {
    /// Creates a ring of 8 entries.
    pub fn new() -> io::Result<Self> {
        let before = clock::monotonic();
        let ring = IoUring::new(8)?;
        Ok(Self { ring, created_ns: (before, clock::monotonic()) })
    }

    /// File descriptor.
    pub fn fd(&self) -> i32 {
        self.ring.as_raw_fd()
    }

    /// Makes the request.
    pub fn call(&self, request: Request<'_>) -> Answer {
        request.call(libc::CLOCK_MONOTONIC, self.fd(), 0)
    }

    /// Makes the request, timed by another clock.
    pub fn call_timed_by(&self, clock: libc::clockid_t, request: Request<'_>) -> Answer {
        request.call(clock, self.fd(), 0)
    }

    /// Reads or writes a file's first bytes with the registered buffer `index`. Returns the request's result.
    pub fn fixed_io(
        &mut self,
        file: &OwnedFd,
        address: u64,
        length: u64,
        index: usize,
        write: bool,
    ) -> anyhow::Result<i32> {
        let (fd, index) = (Fd(file.as_raw_fd()), u16::try_from(index)?);
        self.submit(&if write {
            opcode::WriteFixed::new(fd, address as *const u8, length as u32, index).build()
        } else {
            opcode::ReadFixed::new(fd, address as *mut u8, length as u32, index).build()
        })
    }

    /// Starts a read of one byte into the registered buffer 0 without waiting for it.
    pub fn begin_fixed_read(&mut self, file: &OwnedFd, buffer: Buffer) -> anyhow::Result<()> {
        let entry = opcode::ReadFixed::new(Fd(file.as_raw_fd()), buffer.address as *mut u8, 1, 0).build();
        // SAFETY: the request's memory is the caller's mapping, which outlives the ring.
        unsafe { self.ring.submission().push(&entry) }?;
        self.ring.submit()?;
        Ok(())
    }

    /// Makes a request that does nothing.
    pub fn nop(&mut self) -> anyhow::Result<i32> {
        self.submit(&opcode::Nop::new().build())
    }

    /// Posts an entry to another ring's completion queue (5.18).
    pub fn message(&mut self, to: i32) -> anyhow::Result<i32> {
        self.submit(&opcode::MsgRingData::new(Fd(to), 0, 7, None).build())
    }

    fn submit(&mut self, entry: &squeue::Entry) -> anyhow::Result<i32> {
        // SAFETY: the request's memory is the caller's mapping, which contains no Rust object; the request is waited
        // for.
        unsafe { self.ring.submission().push(entry) }?;
        self.ring.submit_and_wait(1)?;
        Ok(self.ring.completion().next().context("a request without a completion")?.result())
    }

    /// Makes the request through this thread's index of the ring (6.3), and releases the index. The error is the reason
    /// why the ring cannot be registered.
    pub fn call_registered(&self, request: Request<'_>) -> io::Result<Answer> {
        let index = self.index()?;
        let answer = request.call(libc::CLOCK_MONOTONIC, index, USE_REGISTERED_RING);
        // With an index, the ring would outlive its fd for as long as this thread lives.
        self.release_index(index)?;
        Ok(answer)
    }

    /// Releases an index, whichever ring of this thread it belongs to.
    pub fn release_index(&self, index: i32) -> io::Result<()> {
        self.slot(UNREGISTER_RING_FDS, index as u32, 0).map(drop)
    }

    /// Registers the ring itself with this thread (5.18). Returns its index.
    pub fn index(&self) -> io::Result<i32> {
        // This offset requests any free slot.
        self.slot(REGISTER_RING_FDS, u32::MAX, self.fd() as u64).map(|index| index as i32)
    }

    /// Sets or clears a slot of this thread's registered rings. Returns its index.
    fn slot(&self, operation: u32, offset: u32, fd: u64) -> io::Result<u32> {
        /// `struct io_uring_rsrc_update`.
        #[repr(C)]
        struct Slot {
            offset: u32,
            reserved: u32,
            fd: u64,
        }
        let mut slot = Slot { offset, reserved: 0, fd };
        // SAFETY: the kernel writes the slot's number into `slot`, which is valid and of the right size.
        let done = unsafe { libc::syscall(libc::SYS_io_uring_register, self.fd(), operation, &raw mut slot, 1) };
        if done == 1 { Ok(slot.offset) } else { Err(io::Error::last_os_error()) }
    }

    /// Closes the fd of a ring that has an index, which keeps it alive for as long as its thread. Its mappings stay as
    /// well.
    pub fn close_fd(self) {
        let fd = self.fd();
        std::mem::forget(self);
        // SAFETY: the descriptor's owner has been forgotten.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
}

/// Address and length of the mapping of a ring's submission entries. `vmas` are those of this process.
pub fn entries(vmas: &[Vma]) -> anyhow::Result<Buffer> {
    let is_ring = |vma: &&Vma| vma.path.starts_with("anon_inode:") && vma.path.contains("[io_uring]");
    let last =
        vmas.iter().rfind(is_ring).ok_or_else(|| anyhow::anyhow!("/proc/self/maps shows no mapping of a ring"))?;
    Ok(Buffer { address: last.start, length: last.end - last.start })
}
