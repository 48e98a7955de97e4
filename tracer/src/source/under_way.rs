//! Calls under way: what stands in the map `CALLS`, held against the kernel's own memory.
//!
//! A call gives its place back at its end, unless the kernel skipped the run that does so. So each is asked about, by a program that
//! looks at its task's registers; the places of those that have ended are cleared for others.

use aya::{
    Ebpf, TestRun as _,
    programs::{Program, RawTracePoint, RawTracePointRunOptions},
};
use tracer_ebpf::under_way::{self, WORDS, Word, verdict};

use crate::{
    bpf::{mapped::Mapped, read::ReadError},
    probe::table::UNDER_WAY,
    sample::Call,
};

/// Where they stand.
pub struct Calls {
    places: Mapped,
}

impl Calls {
    /// Those of the loaded object.
    ///
    /// # Errors
    /// The map is missing, or the kernel does not let it be written.
    pub fn of(ebpf: &Ebpf) -> Result<Self, ReadError> {
        Ok(Self { places: Mapped::writable(ebpf, "CALLS")? })
    }

    /// Those under way now; `None` where the program was not loaded.
    ///
    /// # Errors
    /// The kernel refuses to run it.
    pub fn read(&self, ebpf: &Ebpf) -> Result<Option<Vec<Call>>, ReadError> {
        let Some(Program::RawTracePoint(program)) = ebpf.program(UNDER_WAY) else { return Ok(None) };
        if program.fd().is_err() {
            return Ok(None);
        }
        let words: Vec<u64> = self.places.words(0).collect();
        let (mut calls, mut registers) = (Vec::new(), None);
        for (place, words) in words.as_chunks::<WORDS>().0.iter().enumerate() {
            let [call, task] = [Word::Call, Word::Task].map(|word| words[word as usize]);
            if call == 0 {
                continue;
            }
            // One answer serves for all calls of a reading.
            let registers = match registers {
                Some(registers) => registers,
                None => *registers.insert(ask(program, [0; 4])?),
            };
            let said = ask(program, [place as u64, task, call, registers.into()])?;
            if said == verdict::ENDED {
                self.places.clear(place * WORDS + Word::Call as usize, call);
            } else {
                calls.extend(self.call(place, [call, task], said == verdict::UNDER_WAY));
            }
        }
        Ok(Some(calls))
    }

    /// The call of a place, of which the program wrote whose it is.
    fn call(&self, place: usize, [call, task]: [u64; 2], sure: bool) -> Option<Call> {
        let now: Vec<u64> = self.places.words(0).skip(place * WORDS).take(WORDS).collect();
        // It ended meanwhile, and another may be there.
        if now.get(..2) != Some(&[call, task]) {
            return None;
        }
        let numbers = now[Word::Numbers as usize];
        let mut comm = [0; 16];
        for (part, word) in comm.chunks_exact_mut(8).zip(&now[Word::Comm as usize..]) {
            part.copy_from_slice(&word.to_ne_bytes());
        }
        let call = under_way::Call(call);
        Some(Call {
            since_ns: call.since_ns(),
            operation: call.operation(),
            pid: (numbers >> 32) as u32,
            tid: numbers as u32,
            comm,
            sure,
        })
    }
}

/// What the program says of a call, or without one of where registers lie.
fn ask(program: &RawTracePoint, call: [u64; 4]) -> Result<u32, ReadError> {
    let mut options = RawTracePointRunOptions::new();
    options.args[..4].copy_from_slice(&call);
    let result = program.test_run(options);
    Ok(result.map_err(|error| ReadError::Run(UNDER_WAY, error.to_string()))?.return_value)
}
