//! Zeros without `memset`.

/// Stores zeros one by one: a run of plain ones becomes a call of `memset`, which goes byte by byte.
macro_rules! zero {
    ($($place:expr),+ $(,)?) => {
        // SAFETY: the places are fields of a value that is borrowed mutably.
        $(unsafe { core::ptr::write_volatile(&raw mut $place, 0) };)+
    };
}

pub(crate) use zero;
