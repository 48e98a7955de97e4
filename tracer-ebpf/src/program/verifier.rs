//! What keeps the verifier from checking the same code again and again: a start waits for it.
//!
//! A function of ours is checked anew on every way that leads to it, with all that is known there. A *global* one (BTF's
//! word; with pointers on every kernel that has task storage for tracing programs) is checked by itself, for any arguments: it may be as long and have as many
//! branches as it likes. The price is that of a call, some twenty instructions, so what every registration passes is
//! not among them.

/// Defines a global function: first what it gets by reference, then its numbers. The verifier holds a pointer for one
/// that may be null, and wants the answer to be a number.
macro_rules! apart {
    (
        $(#[$attribute:meta])*
        $visibility:vis fn $name:ident([$($pointer:ident: $pointed:ty),+] $(, $number:ident: $kind:ty)* $(,)?) $body:block
    ) => {
        $(#[$attribute])*
        #[inline(always)]
        $visibility fn $name($($pointer: &mut $pointed,)+ $($number: $kind),*) {
            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $name($($pointer: *mut $pointed,)+ $($number: $kind),*) -> u32 {
                $(
                    // SAFETY: only the function around this one calls it, with a reference.
                    let Some($pointer) = (unsafe { $pointer.as_mut() }) else { return 0 };
                )+
                $body
                0
            }
            $name($($pointer,)+ $($number),*);
        }
    };
}

pub(crate) use apart;

/// A value as it lies in a map: the verifier forgets what it knew of it, and checks what follows once, not once for each
/// way on which it became what it is.
#[inline(always)]
pub fn forgotten<T: Copy>(place: &T) -> T {
    // SAFETY: a valid place of plain data.
    unsafe { core::ptr::from_ref(place).read_volatile() }
}
