//! The counters of the map `TOTALS`, one array of them per CPU.

use crate::{
    backing::{BackingTotals, Kind},
    installation::Installation,
    operation::Operation,
};

/// What is counted; the number is the slot. The first seven come once for every [`Operation`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counter {
    /// The hook at the function's entry ran and the task has a frame. For unregister: called by the user, not by the
    /// kernel's own cleanup, and counted when the tracepoint has confirmed it.
    Entries = 0,
    /// The hook at the function's return ran.
    Returns = 4,
    /// The tracepoint `io_uring_register` fired with an opcode of the operation.
    Ledger = 8,
    /// The tracepoint reported an error and no entry was seen: refused before the function was reached.
    RefusedEarly = 12,
    /// The tracepoint reported success and no entry was seen.
    MissedEntries = 16,
    /// The tracepoint fired while the entry's return had not been seen.
    MissedReturns = 20,
    /// The tracepoint reported success: the first slot of the operation's results, here since it is by far the most
    /// frequent one.
    Succeeded = 24,
    /// Accepted registrations of one buffer in one VMA, with nothing missed, where the pin is the buffer: each stands for
    /// one in the counts and histograms that [`Self::ONES`] and [`crate::histogram::Histogram::ONES`] name. The first of
    /// two for each [`Installation`] that pins; see [`Self::of_installation`].
    Plain = 28,
    /// Installations, the first of two for each [`Installation`] likewise.
    Installations = 36,
    /// Updates that took buffers out of their slots and put none in, before the ring's first request; the next slot has
    /// those after it.
    EmptyingUpdates = 46,
    /// Buffers in one VMA, walked to its end, of the other registrations: each stands for a one in the histogram of
    /// VMAs per buffer.
    SingleVmaBuffers = 48,
    /// The per-buffer function was entered.
    BufferEntries,
    /// It returned.
    BufferReturns,
    /// It was entered anew, or its registration ended, without its return having been seen.
    BufferMissedReturns,
    /// The pin was entered inside a buffer.
    PinEntries,
    /// It returned.
    PinReturns,
    /// Its buffer returned without the pin's return having been seen.
    PinMissedReturns,
    /// Buffers walked to their end.
    WalksComplete,
    /// Buffers in whose range lies a hole: the VMAs up to it were seen, as the kernel sees them.
    WalksHole,
    /// Walks that ended early since a writer held `mmap_lock`.
    WalksBusy,
    /// Walks that ended at more VMAs than any process can have.
    WalksCut,
    /// Buffers that were not walked: no range, or no way to walk (before 5.17).
    WalksNone,
    /// Nanoseconds that the walks took: pinscope's own cost, left out of every other duration.
    WalkNanoseconds,
    /// VMAs that the walks saw, those of walks that ended early among them.
    WalkVmas,
    /// Minor faults (`task_struct.min_flt`) taken inside pins.
    MinorFaults,
    /// Major faults (`task_struct.maj_flt`) taken inside pins.
    MajorFaults,
    /// Look-ups of a VMA that the kernel made inside pins.
    Lookups,
    /// Buffers with more than one file.
    MultiFileBuffers,
    /// Buffers with more than one `vm_file`.
    MultiVmFileBuffers,
    /// Buffers with more distinct files, or more distinct backings, than a record holds.
    ShortRecords,
    /// `io_sqe_buffers_unregister` called by the kernel's own cleanup of a failed registration or replaced table.
    InternalUnregisters,
    /// `io_sqe_buffers_unregister` called when the ring went away.
    RingExitUnregisters,
    /// Registration records that found the ring buffer full.
    LostRegistrationRecords,
    /// Buffer records that found the ring buffer full.
    LostBufferRecords,
    /// Entries for which no per-task state could be had: these are in no other figure.
    LostFrames,
    /// Registrations not counted under a process since that map was full.
    LostProcesses,
    /// Backings of a buffer not counted since that map was full.
    LostBackings,
    /// Entries of which the end was never seen: the next one, or the end of another operation, came first.
    Reentries,
    /// Calls of tasks of so many generations that it was not followed whether they descend from the traced command.
    LostDescendants,
    /// The per-buffer function returned without its entry having been seen.
    BufferMissedEntries,
    /// The pin returned without its entry having been seen.
    PinMissedEntries,
    /// Registrations not counted under a ring since that map was full.
    LostRings,
    /// Buffers with a trait, or refused, not counted by their traits since that map was full.
    LostJudgements,
    /// Files of buffers that span several not counted since that map was full.
    LostFiles,
    /// Walked and accepted buffers without a trait: no policy objects to them.
    CleanBuffers,
    /// Walked buffers that were pinned and let go again, since another one of their call was refused.
    RolledBackBuffers,
    /// Bytes of buffers that were asked for and are not registered, at most 2^40 (the most that any kernel takes) a call.
    RefusedBytes,
    /// Buffers of calls whose entry was not seen.
    StrayBuffers,
    /// Buffers of whose pins not all page faults are known ([`crate::record::flag::FAULTS_UNTOLD`]).
    UntoldFaults,
    /// Calls for which there was no place among those under way.
    LostCalls,
    /// Calls whose function was seen, and their entry was not, where it is hooked: their own time is not known.
    UntimedCalls,
    /// Calls whose own time is known; by operation, as the next three are.
    TimedCalls = 108,
    /// Nanoseconds of those before their function.
    CallWaitNs = 112,
    /// Nanoseconds of those in their function, pinscope's own walks left out.
    CallFunctionNs = 116,
    /// Nanoseconds of those behind their function, up to the tracepoint.
    CallAfterNs = 120,
    /// Calls that were under way when calls began to be counted, and ended since: in no other figure.
    EarlyCalls = 124,
}

impl Counter {
    /// Slots of the array, a power of two.
    pub const SLOTS: usize = 128;

    /// What a [`Self::Plain`] registration adds one to, without having done so.
    pub const ONES: [Self; 7] = [
        Self::BufferEntries,
        Self::BufferReturns,
        Self::PinEntries,
        Self::PinReturns,
        Self::WalksComplete,
        Self::WalkVmas,
        Self::CleanBuffers,
    ];

    /// The slot of an operation's counter. Only for those that come by operation.
    #[inline(always)]
    pub const fn of(self, operation: Operation) -> usize {
        self as usize + operation as usize
    }

    /// The slot of an installation on a ring that had been given requests, or not. Only for [`Self::Plain`] and
    /// [`Self::Installations`].
    #[inline(always)]
    pub const fn of_installation(self, installation: Installation, used: bool) -> usize {
        self as usize + 2 * installation as usize + used as usize
    }
}

/// Value of the map `TOTALS`, per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Totals {
    /// By [`Counter`].
    pub counters: [u64; Counter::SLOTS],
    /// Backings without a filesystem's name under no rule of GUP's, by [`Kind`].
    pub kinds: [BackingTotals; Kind::PLAIN as usize],
}

/// Row of the map `RESULTS` behind those of the operations: updates that installed some of their buffers and not all, by
/// the errno of the one that stopped them; slot 0 where that is not known.
pub const PARTIAL_RESULTS: usize = Operation::COUNT;

/// Entries of the map `RESULTS`: one for each operation, and [`PARTIAL_RESULTS`].
pub const RESULT_ROWS: usize = Operation::COUNT + 1;

/// The map `RESULTS`, laid out flat: for each row, a slot for each errno.
pub const RESULT_SLOTS: usize = RESULT_ROWS * ERRNO_SLOTS;

/// Errnos told apart; slot 0 is success, the last one is every larger errno (none is known to come here).
pub const ERRNO_SLOTS: usize = 256;

/// The slot of a result among those of its operation; `ret` is the return value, an errno when negative.
#[inline(always)]
pub const fn errno_slot(ret: i64) -> usize {
    let errno = if ret >= 0 {
        0
    } else if ret < -(ERRNO_SLOTS as i64 - 1) {
        ERRNO_SLOTS - 1
    } else {
        -ret as usize
    };
    errno & (ERRNO_SLOTS - 1)
}

/// The slot of a result in the flat layout.
pub const fn result_slot(operation: Operation, ret: i64) -> usize {
    operation as usize * ERRNO_SLOTS + errno_slot(ret)
}

/// The slot of a partial update in the flat layout; `ret` is the refused buffer's, 0 where it is not known.
pub const fn partial_slot(ret: i64) -> usize {
    PARTIAL_RESULTS * ERRNO_SLOTS + errno_slot(ret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_a_slot_of_its_own() {
        assert!((Counter::UntimedCalls as usize) < Counter::TimedCalls as usize);
        let by_operation = [Counter::TimedCalls, Counter::CallWaitNs, Counter::CallFunctionNs, Counter::CallAfterNs];
        for pair in by_operation.windows(2) {
            assert_eq!(pair[0].of(Operation::Unregister) + 1, pair[1] as usize);
        }
        assert_eq!(Counter::CallAfterNs.of(Operation::Unregister) + 1, Counter::EarlyCalls as usize);
        assert!((Counter::EarlyCalls as usize) < Counter::SLOTS);
        assert_eq!(Counter::Succeeded.of(Operation::Unregister) + 1, Counter::Plain as usize);
        let last = Installation::ALL[Installation::PINNING - 1];
        assert_eq!(Counter::Plain.of_installation(last, true) + 1, Counter::Installations as usize);
        let last = Counter::Installations.of_installation(Installation::Clone, true);
        assert_eq!([last + 1, last + 3], [Counter::EmptyingUpdates as usize, Counter::SingleVmaBuffers as usize]);
    }

    #[test]
    fn results_land_in_their_operation() {
        assert_eq!(result_slot(Operation::Register, 0), 0);
        assert_eq!(result_slot(Operation::Register, 12), 0);
        assert_eq!(result_slot(Operation::Update, -14), ERRNO_SLOTS + 14);
        assert_eq!(result_slot(Operation::Unregister, i64::MIN) + 1, partial_slot(0));
        assert_eq!(partial_slot(i64::MIN), RESULT_SLOTS - 1);
    }
}
