//! Values of which the compiler knows nothing, for the sake of the verifier: it has to see masks that the compiler can
//! prove to be needless, and branches in the order in which they stand.

/// The same value, hidden from the compiler. `core::hint::black_box` takes the way over memory, which is four instructions
/// of BPF; this takes one. (With none, the BTF would have two lines for the instruction behind, which the kernel refuses.)
#[inline(always)]
#[must_use]
pub fn opaque(value: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    let value = {
        let same;
        // SAFETY: a register onto itself. It is not `pure`, so that it stays behind the branch that it stands behind.
        unsafe { core::arch::asm!("{0} = {0}", inlateout(reg) value => same, options(nomem, nostack)) };
        same
    };
    value
}
