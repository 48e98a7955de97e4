//! pinscope's eBPF programs.
//!
//! One file a family of hooks in `probe/`, each program one line over an inlined handler, twice: for kprobes and for
//! trampolines. A registration is opened at its function's entry, filled by the hooks below it, and closed by the
//! tracepoint `io_uring_register`, which fires at the end of the system call in the same task.
#![expect(clippy::needless_pass_by_value, reason = "the macros hand a program its context by value")]

mod by_backing;
mod by_traits;
mod calls;
mod cgroup;
mod cost;
mod deferred;
mod fold;
mod frame;
mod kernel;
mod length;
mod maps;
mod outcome;
mod probe;
mod process;
mod process_patterns;
mod records;
mod ring;
mod session;
mod settings;
mod slots;
mod tables;
mod tree;
mod verifier;
mod walk;
mod zero;

/// A loop without end, which the verifier rejects: a program that could reach a panic does not load.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The helpers that read kernel memory are open to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
