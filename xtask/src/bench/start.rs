//! Costs of a start by step, and verified instructions by program. Pure.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

/// Maximum number of instructions that the verifier may process, by prefix of the program's name; the longest matching
/// prefix applies.
///
/// A start waits for the verifier. The budget of unnamed programs is well above what any of them needs; the others are
/// a tenth above the numbers at the time of writing.
const BUDGETS: [(&str, u64); 12] = [
    ("", 2_000),
    ("audit_", 12_500),
    ("buffer_enter", 11_000),
    ("buffer_exit", 31_000),
    ("clone_enter", 3_400),
    ("clone_exit", 3_100),
    ("ledger", 38_500),
    ("pin_enter_buffer", 14_000),
    ("pin_exit_buffer", 6_500),
    ("register_exit", 3_100),
    ("unregister_enter", 4_000),
    ("update_e", 3_400),
];

/// Lines about starts, in order of their output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// Begin of each step in microseconds; the last entry is the end.
    steps: Vec<(u64, String)>,
    /// Verified instructions by program, the maximum of all loads.
    verified: BTreeMap<String, u64>,
}

impl Start {
    /// Reads a line of the guest's output. Returns whether it is about a start.
    pub fn read_line(&mut self, line: &str) -> Result<bool> {
        if let Some((after, step)) = numbered(line, "bench-step ")? {
            self.steps.push((after, step.to_owned()));
        } else if let Some((count, program)) = numbered(line, "bench-verified ")? {
            let most = self.verified.entry(program.to_owned()).or_default();
            *most = count.max(*most);
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// Each step with its duration in microseconds.
    pub fn parts(&self) -> impl Iterator<Item = (&str, u64)> {
        let ends = self.steps.iter().skip(1).map(|(after, _)| *after);
        self.steps.iter().zip(ends).map(|((after, step), end)| (step.as_str(), end.saturating_sub(*after)))
    }

    /// Each program with its verified instructions and its budget.
    pub fn programs(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        self.verified.iter().map(|(program, &count)| (program.as_str(), count, budget(program)))
    }

    pub fn is_over_budget(&self) -> bool {
        self.programs().any(|(_, count, budget)| count > budget)
    }

    /// Lines for people: the steps, and the programs above the lowest budget.
    pub fn lines(&self, mode: &str) -> Vec<String> {
        let parts = self.parts().map(|(step, took)| format!("{mode}, start: {:>8.1} M {step}", took as f64 / 1000.0));
        let sum: u64 = self.verified.values().sum();
        let programs = self.programs().filter(|(_, count, budget)| *count > BUDGETS[0].1 || count > budget);
        let programs = programs.map(|(program, count, budget)| {
            let mark = if count > budget { "!" } else { "" };
            format!("{mode}, verified: {count:>7}{mark} {program} (budget {budget})")
        });
        let all = (sum > 0).then(|| format!("{mode}, verified: {sum:>7} in {} programs", self.verified.len()));
        parts.chain(programs).chain(all).collect()
    }
}

fn budget(program: &str) -> u64 {
    let fitting = BUDGETS.iter().filter(|(beginning, _)| program.starts_with(beginning));
    fitting.max_by_key(|(beginning, _)| beginning.len()).map_or(0, |(_, budget)| *budget)
}

/// The number after a prefix, and the rest of the line.
fn numbered<'a>(line: &'a str, prefix: &str) -> Result<Option<(u64, &'a str)>> {
    let Some(rest) = line.strip_prefix(prefix) else { return Ok(None) };
    let (number, rest) = rest.split_once(' ').context("no number")?;
    Ok(Some((number.parse().context("no number")?, rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_have_lengths_and_programs_budgets() {
        let mut start = Start::default();
        for line in [
            "bench-step 100 reading the kernel's types",
            "bench-step 90100 attaching 7 probes",
            "bench-step 100100 done",
            "bench-verified 19601 ledger",
            "bench-verified 9000 ledger",
            "bench-verified 2001 lookup_enter_fentry",
        ] {
            assert!(start.read_line(line).unwrap(), "{line}");
        }
        assert!(!start.read_line("bench-seen 1").unwrap());
        assert!(start.read_line("bench-step x").is_err());
        let parts: Vec<_> = start.parts().collect();
        assert_eq!(parts, [("reading the kernel's types", 90_000), ("attaching 7 probes", 10_000)]);
        assert!(start.is_over_budget());
        assert_eq!(
            start.lines("daemon"),
            [
                "daemon, start:     90.0 M reading the kernel's types",
                "daemon, start:     10.0 M attaching 7 probes",
                "daemon, verified:   19601 ledger (budget 38500)",
                "daemon, verified:    2001! lookup_enter_fentry (budget 2000)",
                "daemon, verified:   21602 in 2 programs",
            ]
        );
    }

    #[test]
    fn the_longest_prefix_applies() {
        assert_eq!(budget("pin_enter_buffer_kprobe"), 14_000);
        assert_eq!(budget("pin_enter_kprobe"), 2_000);
        assert_eq!(budget("ledger_classic"), 38_500);
    }
}
