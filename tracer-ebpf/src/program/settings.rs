//! What user space tells the programs: constants that it puts into their instructions before the load.

use core::{arch::asm, hint::assert_unchecked, mem::offset_of};

use tracer_ebpf::settings::{Settings, mark};

/// Reads one field of [`Settings`]; the verifier sees a constant.
macro_rules! setting {
    ($($field:ident).+) => {{
        use ::tracer_ebpf::settings::{Settings, mark};
        const MARK: i32 = mark(
            ::core::mem::offset_of!(Settings, $($field).+),
            $crate::program::settings::size(|settings| settings.$($field).+),
        );
        $crate::program::settings::read::<_, MARK>(|settings| settings.$($field).+)
    }};
}
pub(crate) use setting;

/// A type of settings.
pub trait Setting: Copy {
    /// `value` is one of the type.
    fn of(value: u64) -> Self;
}

macro_rules! setting_type {
    ($($integer:ty),+) => {$(
        impl Setting for $integer {
            #[inline(always)]
            fn of(value: u64) -> Self {
                // SAFETY: user space puts a value of the field's size there. The compiler would mask it otherwise.
                unsafe { assert_unchecked(value <= u64::from(Self::MAX)) };
                value as Self
            }
        }
    )+};
}
setting_type!(u8, u16, u32);

/// Bytes of a field.
pub const fn size<T>(_: fn(&Settings) -> T) -> usize {
    size_of::<T>()
}

/// The value for which a mark stands, of the type of a field.
#[inline(always)]
pub fn read<T: Setting, const MARK: i32>(_: fn(&Settings) -> T) -> T {
    T::of(constant::<MARK>())
}

/// See `Session::pid_seen`.
#[inline(always)]
pub fn pid_seen() -> [u32; 2] {
    const SEEN: usize = offset_of!(Settings, session.pid_seen);
    [u32::of(constant::<{ mark(SEEN, 4) }>()), u32::of(constant::<{ mark(SEEN + 4, 4) }>())]
}

/// See `Session::comm`.
#[inline(always)]
pub fn comm() -> [u64; 2] {
    const COMM: usize = offset_of!(Settings, session.comm);
    let word = |low: u64, high: u64| low | high << 32;
    [
        word(constant::<{ mark(COMM, 4) }>(), constant::<{ mark(COMM + 4, 4) }>()),
        word(constant::<{ mark(COMM + 8, 4) }>(), constant::<{ mark(COMM + 12, 4) }>()),
    ]
}

#[inline(always)]
fn constant<const MARK: i32>() -> u64 {
    let value: u64;
    // SAFETY: a move of a constant, which reads and writes nothing else.
    unsafe { asm!("{} = {}", out(reg) value, const MARK, options(pure, nomem, nostack, preserves_flags)) };
    value
}
