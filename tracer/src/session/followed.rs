//! Sources that keep something from one reading to the next, each with the fold of what it reads.

use aya::Ebpf;

use crate::{
    aggregate::{
        registered::{self, Registered, Shares},
        workloads::{SeriesKeeper, WorkloadFigures, Workloads},
    },
    bpf::read::ReadError,
    kernel::Hierarchy,
    source::{tables, workloads},
};

/// Figures by workload.
pub struct ByWorkload {
    source: workloads::Source,
    folder: SeriesKeeper,
}

impl ByWorkload {
    /// At most `cap` workloads have series of their own.
    pub fn start(ebpf: &Ebpf, iterator: u32, hierarchy: &Hierarchy, cap: u32) -> Result<Self, ReadError> {
        let source = workloads::Source::start(ebpf, iterator, hierarchy)?;
        Ok(Self { source, folder: SeriesKeeper::new(usize::try_from(cap).unwrap_or(usize::MAX)) })
    }

    /// The figures now. `now_ns` is of a clock that never goes back.
    pub fn read(
        &mut self,
        now_ns: u64,
        told: WorkloadFigures,
        shares: Option<&Shares>,
    ) -> Result<Workloads, ReadError> {
        let (readings, rest) = self.source.read(now_ns, |id| self.folder.knows(id))?;
        for id in self.folder.read(now_ns, readings, rest) {
            // An entry that cannot be deleted is read again the next time.
            if self.source.remove(id) {
                self.folder.forget(now_ns, id);
            }
        }
        Ok(Workloads { folders_cut: self.source.walk_was_cut(), ..self.folder.workloads(told, shares) })
    }
}

/// What is registered.
pub struct Tables {
    source: tables::Source,
    /// What the last reading came to.
    sum: Option<Registered>,
    /// Tables that were there before are among them.
    from_before: bool,
}

impl Tables {
    /// `from_before` says whether the search found all that was there.
    pub fn start(ebpf: &Ebpf, iterator: u32, from_before: bool) -> Result<Self, ReadError> {
        Ok(Self { source: tables::Source::start(ebpf, iterator)?, sum: None, from_before })
    }

    /// What is registered now. `skipped` counts the ends of tables that no hook saw, where the kernel tells.
    pub fn read(&mut self, ebpf: &Ebpf, skipped: Option<u64>) -> Result<Registered, ReadError> {
        let found = self.source.read(ebpf, skipped)?;
        let sum = match self.sum.take().filter(|_| !found.changed) {
            Some(sum) => sum,
            None => Registered { from_before: self.from_before, ..registered::sum(self.source.tables()) },
        };
        self.sum = Some(sum.clone());
        Ok(Registered { lost: found.lost, ..sum })
    }
}
