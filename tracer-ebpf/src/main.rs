//! pinscope's eBPF programs.
//!
//! One file a family of hooks in `probe/`, each program one line over an inlined handler, twice: for kprobes and for
//! trampolines. A registration is opened at its function's entry, filled by the hooks below it, and closed by the
//! tracepoint `io_uring_register`, which fires at the end of the system call in the same task.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// The target declares no atomics, since its oldest processors have none; the intrinsic is there all the same.
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics), allow(internal_features, reason = "see above"))]
#![cfg_attr(
    target_arch = "bpf",
    expect(clippy::needless_pass_by_value, reason = "the macros hand a program its context by value")
)]

#[cfg(target_arch = "bpf")]
mod calls;
#[cfg(target_arch = "bpf")]
mod cgroup;
#[cfg(target_arch = "bpf")]
mod cost;
#[cfg(target_arch = "bpf")]
mod fold;
#[cfg(target_arch = "bpf")]
mod frame;
#[cfg(target_arch = "bpf")]
mod gathered;
#[cfg(target_arch = "bpf")]
mod habit;
#[cfg(target_arch = "bpf")]
mod judge;
#[cfg(target_arch = "bpf")]
mod kernel;
#[cfg(target_arch = "bpf")]
mod length;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod probe;
#[cfg(target_arch = "bpf")]
mod ring;
#[cfg(target_arch = "bpf")]
mod session;
#[cfg(target_arch = "bpf")]
mod slots;
#[cfg(target_arch = "bpf")]
mod tables;
#[cfg(target_arch = "bpf")]
mod tree;
#[cfg(target_arch = "bpf")]
mod verifier;
#[cfg(target_arch = "bpf")]
mod walk;

/// A loop without end, which the verifier rejects: a program that could reach a panic does not load.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The helpers that read kernel memory are open to GPL-compatible programs only.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Lets `cargo build --workspace` and clippy pass on the host, for which there is nothing here.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
