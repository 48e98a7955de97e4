//! The eBPF object; see `program`.
#![cfg_attr(
    target_arch = "bpf",
    no_std,
    no_main,
    // The target declares no atomics, since its oldest processors have none; the intrinsic is there all the same.
    feature(core_intrinsics, asm_experimental_arch),
    allow(internal_features, reason = "see above")
)]

#[cfg(target_arch = "bpf")]
mod program;

/// Lets `cargo build --workspace` and clippy pass on the host, for which there is nothing here.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
