//! Calls under way: the one value of the map `CALLS`, places of words of which each call takes one while it lasts.
//!
//! A task takes the place that it had before, or one near its number where no call is under way. Two tasks that take the same
//! place in the same moment are not kept apart: then one of the two is not seen for as long as it lasts. A call gives back only
//! what it wrote itself.
//!
//! The kernel may skip the run that gives a place back. So whoever reads the places asks the kernel's own memory of each whether
//! its call is under way still, and clears those whose call has ended ([`verdict`]).

use crate::operation::Operation;

/// Places.
pub const CALLS: usize = 512;

/// Words of a place.
pub const WORDS: usize = 8;

/// Places that are looked at for one that is free.
pub const TRIES: usize = 4;

/// Words of the map's value.
pub const SLOTS: usize = CALLS * WORDS;

/// What a word of a place is; the number is its position.
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// The [`Call`]; 0 where none is under way.
    Call = 0,
    /// Address of the `task_struct` of whoever was here last.
    Task = 1,
    /// Its thread group, in the upper half, and thread, as pinscope's PID namespace numbers them: written when it is asked for.
    Numbers = 2,
    /// Its `task_struct.comm`, two words, likewise.
    Comm = 3,
}

/// When a call began, and its operation, in one word, which is never torn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call(pub u64);

impl Call {
    const OPERATION: u64 = Operation::COUNT as u64 - 1;

    /// That of an operation which began at this time, `CLOCK_MONOTONIC` nanoseconds.
    #[inline(always)]
    #[must_use]
    pub const fn new(operation: Operation, now: u64) -> Self {
        const { assert!(Operation::COUNT.is_power_of_two(), "the operation takes whole bits of the time") };
        Self(now & !Self::OPERATION | operation as u64)
    }

    /// When it began, to some nanoseconds.
    #[inline(always)]
    #[must_use]
    pub const fn since_ns(self) -> u64 {
        self.0 & !Self::OPERATION
    }

    /// Number of its [`Operation`].
    #[inline(always)]
    #[must_use]
    pub const fn operation(self) -> u8 {
        (self.0 & Self::OPERATION) as u8
    }
}

/// What is said of a call when the kernel's memory was asked.
pub mod verdict {
    /// It has ended.
    pub const ENDED: u32 = 0;
    /// It is under way.
    pub const UNDER_WAY: u32 = 1;
    /// This kernel keeps the registers of system calls where they are not found.
    pub const UNTOLD: u32 = 2;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_holds_time_and_operation() {
        for operation in Operation::ALL {
            let call = Call::new(operation, 1_234_567);
            assert_eq!((call.since_ns(), call.operation()), (1_234_564, operation as u8));
            assert_ne!(call.0, 0);
        }
        assert!(CALLS.is_power_of_two() && (Word::Comm as usize) + 2 <= WORDS);
    }
}
