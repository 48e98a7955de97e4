//! Calls under way: the one value of the map `CALLS`, places of words of which each call takes one while it lasts.
//!
//! A task finds a place by its number, and keeps it free of another's by looking whether one is under way there. Two tasks
//! that take the same place in the same moment are not kept apart: then one of the two is not seen for as long as it lasts.
//! A call gives back only what it wrote itself, so nothing stays behind.

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
    /// When the call began, `CLOCK_MONOTONIC` nanoseconds; 0 where none is under way.
    Since = 0,
    /// Number of the [`crate::operation::Operation`].
    Operation = 1,
    /// Thread group and thread of whoever was here last, as the initial PID namespace numbers them.
    Owner = 2,
    /// Its thread group, in the upper half, and thread as pinscope's own numbers them.
    Numbers = 3,
    /// Its `task_struct.comm`, two words.
    Comm = 4,
}

/// A call under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// When it began, `CLOCK_MONOTONIC` nanoseconds.
    pub since_ns: u64,
    /// Number of the [`crate::operation::Operation`].
    pub operation: u8,
    /// Thread group.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// `task_struct.comm`.
    pub comm: [u8; 16],
}

impl Call {
    /// The call of a place; `None` where none is under way.
    pub fn of(words: &[u64; WORDS]) -> Option<Self> {
        let word = |word: Word| words[word as usize];
        if word(Word::Since) == 0 {
            return None;
        }
        let numbers = word(Word::Numbers);
        let mut comm = [0; 16];
        comm[..8].copy_from_slice(&words[Word::Comm as usize].to_ne_bytes());
        comm[8..].copy_from_slice(&words[Word::Comm as usize + 1].to_ne_bytes());
        Some(Self {
            since_ns: word(Word::Since),
            operation: word(Word::Operation) as u8,
            pid: (numbers >> 32) as u32,
            tid: numbers as u32,
            comm,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_until_its_call_began() {
        let mut words = [0; WORDS];
        words[Word::Numbers as usize] = 7 << 32 | 8;
        assert_eq!(Call::of(&words), None);
        words[Word::Since as usize] = 5;
        words[Word::Operation as usize] = 3;
        words[Word::Comm as usize] = u64::from_ne_bytes(*b"fio\0\0\0\0\0");
        let call = Call::of(&words).unwrap();
        assert_eq!((call.since_ns, call.operation, call.pid, call.tid, &call.comm[..4]), (5, 3, 7, 8, &b"fio\0"[..]));
        assert!(CALLS.is_power_of_two() && (Word::Comm as usize) + 2 <= WORDS);
    }
}
