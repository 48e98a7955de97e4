//! A 32-bit caller: its iovecs have another layout, and pinscope has to read them as the kernel does.

use std::{arch::asm, fs, os::fd::FromRawFd, os::fd::OwnedFd, os::unix::process::ExitStatusExt, process::Command};

use anyhow::{Context as _, ensure};

use super::{check_records, ready};
use crate::{
    attempt::Attempt,
    clock,
    context::Context,
    maps,
    protocol::{Test, TestResult, Verdict},
    ring::{Answer, Buffer},
    sys::{self, PAGE},
};

/// io_uring's system call numbers are the same in both tables.
const IO_URING_SETUP: u32 = 425;
const IO_URING_REGISTER: u32 = 427;
const GETPID: u32 = 20;
/// An address below 4 GiB that this program does not use.
const LOW: u64 = 0x6000_0000;
/// Sizes of `struct io_uring_params` and of the 32-bit iovec.
const PARAMS: u64 = 120;
const IOVEC: u64 = 8;

pub fn tests() -> Vec<Test> {
    vec![Test::new("compat_iovecs", iovecs)]
}

/// Makes a system call through the 32-bit entry.
///
/// # Safety
///
/// As for the call itself.
unsafe fn int80(number: u32, arguments: [u32; 4]) -> i32 {
    let ret: u32;
    // SAFETY: the entry preserves all registers except those named here; rbx, which the compiler reserves, is swapped
    // back. The caller guarantees what the kernel does with the arguments.
    unsafe {
        asm!(
            "xchg rbx, {first}",
            "int 0x80",
            "xchg rbx, {first}",
            first = inout(reg) u64::from(arguments[0]) => _,
            inout("eax") number => ret,
            in("ecx") arguments[1],
            in("edx") arguments[2],
            in("esi") arguments[3],
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    ret as i32
}

/// Child process of [`gate`]: killed by a signal if the 32-bit entry is disabled.
pub fn probe() -> u8 {
    // SAFETY: getpid takes no arguments and touches no memory.
    let pid = unsafe { int80(GETPID, [0; 4]) };
    u8::from(pid != std::process::id() as i32)
}

/// The reason why 32-bit calls do not work here; `None` if they do.
fn gate() -> anyhow::Result<Option<String>> {
    let status = Command::new("/proc/self/exe").args(["probe", "int80"]).status().context("starting ourselves")?;
    Ok(match (status.code(), status.signal()) {
        (Some(0), _) => None,
        (_, Some(signal)) => Some(format!("32-bit system calls are off: int 0x80 gets signal {signal}")),
        (code, _) => Some(format!("32-bit system calls are off: int 0x80 ends with {code:?}")),
    })
}

fn iovecs(context: &Context) -> TestResult {
    if let Some(why) = gate()? {
        return Ok(Verdict::Ignored(why));
    }
    ready(context)?;
    sys::map_at(LOW, 16 * PAGE, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None, 0)?;
    let (fd, created_ns) = setup()?;
    let raw_fd = std::os::fd::AsRawFd::as_raw_fd(&fd);
    sys::advise(LOW + 5 * PAGE, PAGE, libc::MADV_DONTFORK)?;
    let good = [
        Buffer { address: LOW + 4 * PAGE + 10, length: 2 * PAGE },
        Buffer { address: LOW + 8 * PAGE, length: 1 },
        Buffer { address: LOW + 9 * PAGE, length: 7 * PAGE },
    ];
    let bad = [good[0], Buffer { address: LOW + 15 * PAGE, length: PAGE + 1 }];
    let mut attempts = Vec::new();
    for (opcode, buffers, failed_at) in [(0, &good[..], None), (1, &[], None), (0, &bad[..], Some(1))] {
        let attempt = call(context, raw_fd, created_ns, opcode, buffers)?;
        ensure!((attempt.answer.ret < 0) == failed_at.is_some(), "opcode {opcode} was answered {}", attempt.answer.ret);
        attempts.push((attempt, failed_at));
    }
    let verdict = check_records(context, &attempts);
    // SAFETY: only integers refer to this range.
    unsafe { sys::unmap(LOW, 16 * PAGE) };
    verdict.map(|()| Verdict::Passed)
}

/// Creates a ring through the 32-bit entry, which makes the kernel read 32-bit iovecs.
fn setup() -> anyhow::Result<(OwnedFd, (u64, u64))> {
    // SAFETY: the page was mapped for this; zeroed `io_uring_params` are valid.
    unsafe { std::ptr::write_bytes(LOW as *mut u8, 0, PARAMS as usize) };
    let before = clock::monotonic();
    // SAFETY: the kernel writes only to the params.
    let fd = unsafe { int80(IO_URING_SETUP, [8, LOW as u32, 0, 0]) };
    ensure!(fd >= 0, "io_uring_setup by int 0x80: errno {}", -fd);
    // SAFETY: the call returned this descriptor, which has no other owner.
    Ok((unsafe { OwnedFd::from_raw_fd(fd) }, (before, clock::monotonic())))
}

fn call(
    context: &Context,
    fd: i32,
    ring_created_ns: (u64, u64),
    opcode: u32,
    buffers: &[Buffer],
) -> anyhow::Result<Attempt> {
    let table = LOW + PAGE;
    for (place, buffer) in (0..).zip(buffers) {
        let at = (table + place * IOVEC) as *mut u32;
        // SAFETY: the page was mapped for this and has room for 512 of them.
        unsafe {
            at.write(buffer.address as u32);
            at.add(1).write(buffer.length as u32);
        }
    }
    let vmas = maps::read()?;
    let layout = |buffer: &Buffer| maps::layout(&vmas, &context.filesystems, buffer.address, buffer.length);
    let seen = buffers.iter().map(|buffer| (*buffer, layout(buffer))).collect();
    let argument = if buffers.is_empty() { 0 } else { table as u32 };
    let before = clock::faults();
    let started_ns = clock::monotonic();
    // SAFETY: the kernel reads the table and pins memory that belongs to the test.
    let ret = unsafe { int80(IO_URING_REGISTER, [fd as u32, opcode, argument, buffers.len() as u32]) };
    let ended_ns = clock::monotonic();
    let after = clock::faults();
    Ok(Attempt {
        operation: if opcode == 0 { "register" } else { "unregister" },
        tid: clock::thread_id(),
        pid: std::process::id(),
        comm: fs::read_to_string("/proc/thread-self/comm")?.trim_end().to_owned(),
        ring_fd: fd,
        ring_created_ns,
        requested: (opcode == 0).then_some(buffers.len() as u64),
        buffers: seen,
        answer: Answer { ret: i64::from(ret), started_ns, ended_ns },
        faults: (after.0 - before.0, after.1 - before.1),
    })
}
