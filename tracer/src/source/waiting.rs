//! Whose turn it is to be read, where one reading cannot read all.

use std::collections::{HashMap, HashSet, VecDeque};

/// A queue that takes turns between owners: an owner with many entries delays another owner by one entry at most.
#[derive(Debug, Default)]
pub struct Waiting {
    /// The entries of each owner, oldest first.
    of: HashMap<u64, VecDeque<u64>>,
    /// The owners, by turn.
    turns: VecDeque<u64>,
    all: HashSet<u64>,
}

impl Waiting {
    /// Puts an entry behind the others of its owner, unless it is in the queue already.
    pub fn add(&mut self, owner: u64, what: u64) {
        if !self.all.insert(what) {
            return;
        }
        let own = self.of.entry(owner).or_default();
        if own.is_empty() {
            self.turns.push_back(owner);
        }
        own.push_back(what);
    }

    /// Whether an entry is in the queue.
    pub fn has(&self, what: u64) -> bool {
        self.all.contains(&what)
    }

    /// Keeps only the entries that pass.
    pub fn retain(&mut self, mut passes: impl FnMut(u64) -> bool) {
        self.all.retain(|what| passes(*what));
        self.of.retain(|_, own| {
            own.retain(|what| self.all.contains(what));
            !own.is_empty()
        });
        self.turns.retain(|owner| self.of.contains_key(owner));
    }

    /// Takes the next entry out of the queue.
    pub fn next(&mut self) -> Option<u64> {
        let owner = self.turns.pop_front()?;
        let own = self.of.get_mut(&owner)?;
        let what = own.pop_front()?;
        if own.is_empty() {
            self.of.remove(&owner);
        } else {
            self.turns.push_back(owner);
        }
        self.all.remove(&what);
        Some(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_who_has_many_keeps_no_other_waiting() {
        let mut waiting = Waiting::default();
        for what in 0..1000 {
            waiting.add(1, what);
        }
        assert_eq!(waiting.next(), Some(0));
        waiting.add(2, 5000);
        assert_eq!([waiting.next(), waiting.next(), waiting.next()], [Some(1), Some(5000), Some(2)]);
    }

    #[test]
    fn what_comes_again_and_again_keeps_nothing_from_its_turn() {
        let mut waiting = Waiting::default();
        for what in 0..100 {
            waiting.add(1, what);
        }
        let mut read = HashSet::new();
        for _ in 0..100 {
            // The first ten change all the time.
            (0..10).for_each(|what| waiting.add(1, what));
            read.extend(waiting.next());
            read.extend(waiting.next());
        }
        assert_eq!(read.len(), 100);
    }

    #[test]
    fn each_waits_once_and_what_is_gone_does_not() {
        let mut waiting = Waiting::default();
        for (owner, what) in [(1, 7), (1, 8), (2, 9), (1, 7)] {
            waiting.add(owner, what);
        }
        waiting.retain(|what| what != 9);
        assert_eq!([waiting.next(), waiting.next(), waiting.next()], [Some(7), Some(8), None]);
        waiting.add(2, 9);
        assert_eq!(waiting.next(), Some(9));
    }
}
