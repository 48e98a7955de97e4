//! The hooks, one family a file, each with the prototypes it relies on. The user-space table checks them against the
//! kernel's BTF before anything is attached.

mod audit;
pub mod buffer;
mod call;
mod ledger;
pub mod lock;
mod lookup;
pub mod phase;
mod pin;
mod registration;
mod ring;
mod table;

/// A program for a function's entry, as kprobe and as fentry.
macro_rules! entry {
    ($kprobe:ident, $fentry:ident, |$context:ident| $body:expr) => {
        #[aya_ebpf::macros::kprobe]
        pub fn $kprobe($context: aya_ebpf::programs::ProbeContext) -> u32 {
            $body;
            0
        }

        #[aya_ebpf::macros::fentry]
        pub fn $fentry($context: aya_ebpf::programs::FEntryContext) -> i32 {
            $body;
            0
        }
    };
}

/// A program for a function's return, as kretprobe and as fexit; the second form is for who asks for its value.
/// `$arguments` is how many arguments the function has on kernels before 5.17, behind which its return value stands for
/// fexit.
macro_rules! exit {
    ($kretprobe:ident, $fexit:ident, || $body:expr) => {
        #[aya_ebpf::macros::kretprobe]
        pub fn $kretprobe(_context: aya_ebpf::programs::RetProbeContext) -> u32 {
            $body;
            0
        }

        #[aya_ebpf::macros::fexit]
        pub fn $fexit(_context: aya_ebpf::programs::FExitContext) -> i32 {
            $body;
            0
        }
    };
    ($kretprobe:ident, $fexit:ident, $arguments:literal, |$ret:ident| $body:expr) => {
        #[aya_ebpf::macros::kretprobe]
        pub fn $kretprobe(context: aya_ebpf::programs::RetProbeContext) -> u32 {
            let $ret: u64 = context.ret();
            $body;
            0
        }

        #[aya_ebpf::macros::fexit]
        pub fn $fexit(context: aya_ebpf::programs::FExitContext) -> i32 {
            let $ret: u64 = if $crate::program::settings::setting!(kernel.func_ret) != 0 {
                context.ret().unwrap_or(0)
            } else {
                context.arg($arguments)
            };
            $body;
            0
        }
    };
}

/// A field of the event of a classic tracepoint: `$event` is the kernel's struct of it. The verifier wants these offsets
/// in the instructions, so they cannot come from BTF; the plan holds them against it.
macro_rules! event {
    ($context:expr, $event:ty, $field:ident) => {
        // SAFETY: the context of this program is this struct; the verifier checks the load.
        unsafe { core::ptr::read_volatile(&raw const (*$context.as_ptr().cast::<$event>()).$field) }
    };
}

pub(crate) use entry;
pub(crate) use event;
pub(crate) use exit;

use aya_ebpf::EbpfContext as _;

/// An argument of the hooked function: kprobes give it as an option, since not every register is an argument's.
pub trait Arguments {
    /// The argument at this position, from 0, as it lay in its register.
    fn argument(&self, position: usize) -> u64;

    /// The same for a pointer to a pointer, whose type a trampoline cannot tell; 0 where it is not to be had.
    fn untyped(&self, position: usize) -> u64;

    /// A `struct iovec` in kernel memory at the address in an argument.
    fn iovec(&self, position: usize) -> crate::program::kernel::Iovec;

    /// A 32-bit member of the struct that an argument points to; 0 where it is not to be had.
    fn member(&self, position: usize, offset: u32) -> u32;
}

impl Arguments for aya_ebpf::programs::ProbeContext {
    #[inline(always)]
    fn argument(&self, position: usize) -> u64 {
        self.arg(position).unwrap_or(0)
    }

    #[inline(always)]
    fn untyped(&self, position: usize) -> u64 {
        self.argument(position)
    }

    #[inline(always)]
    fn iovec(&self, position: usize) -> crate::program::kernel::Iovec {
        crate::program::kernel::read(self.argument(position), 0)
            .unwrap_or(crate::program::kernel::Iovec { base: 0, length: 0 })
    }

    #[inline(always)]
    fn member(&self, position: usize, offset: u32) -> u32 {
        crate::program::kernel::read(self.argument(position), offset).unwrap_or(0)
    }
}

impl Arguments for aya_ebpf::programs::FEntryContext {
    #[inline(always)]
    fn argument(&self, position: usize) -> u64 {
        self.arg(position)
    }

    #[inline(always)]
    fn untyped(&self, position: usize) -> u64 {
        if crate::program::settings::setting!(kernel.func_ret) == 0 || !crate::program::session::in_detail() {
            return 0;
        }
        let mut value = 0;
        // SAFETY: the context is this program's, and the value is written before the helper returns.
        unsafe { aya_ebpf::helpers::bpf_get_func_arg(self.as_ptr(), position as u32, &raw mut value) };
        value
    }

    #[inline(always)]
    fn iovec(&self, position: usize) -> crate::program::kernel::Iovec {
        let iovec: u64 = self.arg(position);
        // SAFETY: a trampoline's argument is typed; the layout is part of the system call interface.
        unsafe {
            crate::program::kernel::Iovec {
                base: crate::program::kernel::typed(iovec, 0),
                length: crate::program::kernel::typed(iovec, 8),
            }
        }
    }

    #[inline(always)]
    fn member(&self, position: usize, offset: u32) -> u32 {
        let base: u64 = self.arg(position);
        // SAFETY: a trampoline's argument is typed; the offset is that of a member of the struct it points to.
        unsafe { crate::program::kernel::typed(base, offset) }
    }
}
