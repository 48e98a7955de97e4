//! Measured cases and modes, and how figures are read from a guest's output. Pure: lines in, figures out.

use std::fmt;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{
    self_cost::{Figure, SelfCost},
    start::Start,
};

/// An operation that is repeated and measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    Pages1,
    Pages256,
    Vmas64,
    Iovecs1024,
    Fault,
    Odirect,
}

impl Case {
    pub const ALL: [Self; 6] =
        [Self::Pages1, Self::Pages256, Self::Vmas64, Self::Iovecs1024, Self::Fault, Self::Odirect];
    pub const QUICK: [Self; 4] = [Self::Pages1, Self::Vmas64, Self::Fault, Self::Odirect];

    /// Name in the guest program and in the JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pages1 => "pages1",
            Self::Pages256 => "pages256",
            Self::Vmas64 => "vmas64",
            Self::Iovecs1024 => "iovecs1024",
            Self::Fault => "fault",
            Self::Odirect => "odirect",
        }
    }

    /// Name in the table.
    pub fn title(self) -> &'static str {
        match self {
            Self::Pages1 => "1 page",
            Self::Pages256 => "256 pages",
            Self::Vmas64 => "64 VMAs",
            Self::Iovecs1024 => "1,024 iovecs",
            Self::Fault => "page fault",
            Self::Odirect => "O_DIRECT read",
        }
    }

    /// Number of warm-up runs, in which the operation costs more, and number of measured runs.
    pub fn repeats(self) -> (u64, u64) {
        match self {
            Self::Pages1 | Self::Fault => (4000, 4000),
            Self::Pages256 | Self::Odirect => (2000, 1000),
            Self::Vmas64 => (2000, 2000),
            Self::Iovecs1024 => (200, 60),
        }
    }

    pub fn registers(self) -> bool {
        !matches!(self, Self::Fault | Self::Odirect)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    Fentry,
    Kprobe,
    Multi,
}

impl Attach {
    pub fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Multi => "kprobe.multi",
        }
    }
}

/// The observing program and its attach mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Alone,
    Daemon(Attach),
    Trace(Attach),
    Bpftrace(Attach),
}

impl Mode {
    pub const DAEMON: [Self; 2] = [Self::Daemon(Attach::Fentry), Self::Daemon(Attach::Kprobe)];
    pub const TRACE: [Self; 2] = [Self::Trace(Attach::Fentry), Self::Trace(Attach::Kprobe)];
    pub const BPFTRACE: [Self; 2] = [Self::Bpftrace(Attach::Fentry), Self::Bpftrace(Attach::Kprobe)];

    /// Name of the program, and how it attaches.
    pub fn parts(self) -> (&'static str, Option<Attach>) {
        match self {
            Self::Alone => ("alone", None),
            Self::Daemon(by) => ("daemon", Some(by)),
            Self::Trace(by) => ("trace", Some(by)),
            Self::Bpftrace(by) => ("bpftrace", Some(by)),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parts() {
            (program, Some(by)) => write!(f, "{program} {}", by.name()),
            (program, None) => f.write_str(program),
        }
    }
}

/// Distribution of one operation's cost in instructions. The guest's clock counts instructions as nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    pub case: Case,
    pub n: u64,
    pub min: u64,
    pub median: u64,
    pub p10: u64,
    pub p90: u64,
}

impl Times {
    /// The figure that represents the distribution. The median repeats to the instruction, except for disk reads: the
    /// disk's interrupt falls into some of the reads, and the minimum is a read without it.
    pub fn figure(&self) -> u64 {
        if self.case == Case::Odirect { self.min } else { self.median }
    }
}

/// Results of all cases in one mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    pub mode: Mode,
    pub times: Vec<Times>,
    /// Resident memory of the idle daemon, before the cases ran, in KiB.
    pub resident_kib: Option<u64>,
    /// Resources that the daemon takes for itself.
    pub self_cost: SelfCost,
    /// Costs of its start, by step and by program.
    pub start: Start,
    /// Registrations that the probes saw.
    pub seen: Option<u64>,
    /// Records lost because the ring buffer was full.
    pub lost: Option<u64>,
}

impl Round {
    /// Whether the daemon misses a goal for its own costs.
    pub fn takes_too_much(&self) -> bool {
        self.start.is_over_budget() || Figure::ALL.into_iter().any(|figure| figure.met(&self.self_cost) == Some(false))
    }

    pub fn figure(&self, case: Case) -> Option<u64> {
        self.times(case).map(|times| times.figure())
    }

    pub fn times(&self, case: Case) -> Option<Times> {
        self.times.iter().find(|times| times.case == case).copied()
    }
}

/// Reads the rounds from a guest's output. Checks that every case was measured in every mode, and that the probes saw
/// the registrations.
pub fn rounds(lines: &[String], modes: &[Mode], cases: &[Case]) -> Result<Vec<Round>> {
    let mut rounds: Vec<Round> = Vec::new();
    for line in lines {
        if let Some(name) = line.strip_prefix("bench-mode ") {
            let mode = modes.iter().find(|mode| mode.to_string() == name);
            let mode = *mode.with_context(|| format!("the guest ran an unknown mode {name}"))?;
            rounds.push(Round {
                mode,
                times: Vec::new(),
                resident_kib: None,
                seen: None,
                lost: None,
                self_cost: SelfCost::default(),
                start: Start::default(),
            });
        } else if let Some(round) = rounds.last_mut() {
            let mode = round.mode;
            read_line(round, line).with_context(|| format!("{mode}: {line}"))?;
        }
    }
    for (place, mode) in modes.iter().enumerate() {
        let round = rounds.get(place).filter(|round| round.mode == *mode);
        check(round.with_context(|| format!("{mode}: not measured"))?, cases)?;
    }
    Ok(rounds)
}

fn read_line(round: &mut Round, line: &str) -> Result<()> {
    if let Some(why) = line.strip_prefix("bench-error ") {
        bail!("{why}");
    } else if round.self_cost.read_line(line)? || round.start.read_line(line)? {
        return Ok(());
    } else if let Some(kib) = line.strip_prefix("bench-resident ") {
        round.resident_kib = Some(kib.parse().context("no number")?);
    } else if let Some(count) = line.strip_prefix("bench-seen ") {
        round.seen = Some(count.parse().context("no number")?);
    } else if let Some(end) = line.strip_prefix("bench-trace ") {
        let end: Value = serde_json::from_str(end).context("invalid last line of a trace")?;
        round.seen = end["registrations"].as_u64();
        round.lost =
            end["lost_registration_records"].as_u64().zip(end["lost_buffer_records"].as_u64()).map(|(a, b)| a + b);
    } else if line.starts_with('{') {
        round.times.push(times(line)?);
    }
    Ok(())
}

/// Parses `{"case":"pages1","median":2663,"min":2660,"n":4000,"p10":2663,"p90":2663}`.
fn times(line: &str) -> Result<Times> {
    let value: Value = serde_json::from_str(line)?;
    let number = |key: &str| value[key].as_u64().with_context(|| format!("no {key}"));
    let case = Case::ALL.into_iter().find(|case| value["case"] == case.name()).context("unknown case")?;
    Ok(Times {
        case,
        n: number("n")?,
        min: number("min")?,
        median: number("median")?,
        p10: number("p10")?,
        p90: number("p90")?,
    })
}

fn check(round: &Round, cases: &[Case]) -> Result<()> {
    let mode = round.mode;
    for case in cases {
        if round.times(*case).is_none() {
            bail!("{mode}: {} was not measured", case.title());
        }
    }
    let expected: u64 =
        cases.iter().filter(|case| case.registers()).map(|case| case.repeats().0 + case.repeats().1).sum();
    // The cost of probes that did not fire would be meaningless. A trace also counts unregistrations, and it stops at
    // once on SIGINT, so it may not have handled all of them.
    let enough = match mode {
        Mode::Daemon(_) => round.seen == Some(expected),
        Mode::Trace(_) => round.seen.is_some_and(|seen| seen > 0),
        Mode::Alone | Mode::Bpftrace(_) => true,
    };
    if !enough {
        let seen = round.seen.map_or_else(|| "an unknown number".to_owned(), |seen| seen.to_string());
        bail!("{mode}: the probes saw {seen} of {expected} registrations");
    }
    Ok(())
}

/// Instructions added per further VMA: what 64 VMAs add beyond one VMA, divided by 63. The two cases may differ in
/// pages, because pinscope's work per buffer does not depend on them (as the cases with 1 and 256 pages show).
pub fn further_vma(alone: &Round, round: &Round) -> Option<f64> {
    let of = |case| added(alone, round, case);
    Some((of(Case::Vmas64)? - of(Case::Pages1)?) as f64 / 63.0)
}

/// Instructions that a mode adds to a case.
pub fn added(alone: &Round, round: &Round, case: Case) -> Option<i64> {
    Some(round.figure(case)?.cast_signed() - alone.figure(case)?.cast_signed())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn round(mode: Mode, medians: &[(Case, u64)]) -> Round {
        let times = medians
            .iter()
            .map(|&(case, median)| Times { case, n: 10, min: median - 2, median, p10: median - 1, p90: median + 1 })
            .collect();
        Round {
            mode,
            times,
            resident_kib: None,
            seen: None,
            lost: None,
            self_cost: SelfCost::default(),
            start: Start::default(),
        }
    }

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    const ALONE: &str =
        "bench-mode alone\n{\"case\":\"pages1\",\"median\":2663,\"min\":1,\"n\":4000,\"p10\":2662,\"p90\":2664}";
    const MODES: [Mode; 2] = [Mode::Alone, Mode::Daemon(Attach::Fentry)];

    fn with_daemon(of_daemon: &str) -> Result<Vec<Round>> {
        rounds(&lines(&format!("noise\n{ALONE}\nbench-mode daemon fentry\n{of_daemon}")), &MODES, &[Case::Pages1])
    }

    #[test]
    fn a_round_is_read() {
        let rounds = with_daemon(
            "bench-resident 32740\n{\"case\":\"pages1\",\"median\":6497,\"min\":1,\"n\":4000,\"p10\":6497,\"p90\":6498}\n\
             bench-seen 8000",
        )
        .unwrap();
        let times = Times { case: Case::Pages1, n: 4000, min: 1, median: 6497, p10: 6497, p90: 6498 };
        assert_eq!(
            rounds[1],
            Round {
                mode: MODES[1],
                times: vec![times],
                resident_kib: Some(32740),
                seen: Some(8000),
                lost: None,
                self_cost: SelfCost::default(),
                start: Start::default()
            }
        );
        assert_eq!(added(&rounds[0], &rounds[1], Case::Pages1), Some(3834));
        assert_eq!(added(&rounds[0], &rounds[1], Case::Fault), None);
    }

    #[test]
    fn what_is_not_measured_is_an_error() {
        let case = "{\"case\":\"pages1\",\"median\":1,\"min\":1,\"n\":4000,\"p10\":1,\"p90\":1}";
        for (of_daemon, expected) in [
            ("bench-error not attached: why", "not attached: why"),
            ("bench-seen 8000", "1 page was not measured"),
            (case, "saw an unknown number of 8000"),
            (&format!("{case}\nbench-seen 7999"), "saw 7999 of 8000"),
            ("{\"case\":\"pages1\"}", "no n"),
            ("{\"case\":\"pages2\"}", "unknown case"),
            ("bench-seen ", "no number"),
        ] {
            let error = format!("{:#}", with_daemon(of_daemon).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
        let error = rounds(&lines(ALONE), &MODES, &[Case::Pages1]).unwrap_err();
        assert_eq!(error.to_string(), "daemon fentry: not measured");
    }

    #[test]
    fn a_trace_says_what_it_saw_and_lost() {
        let text = "bench-mode trace kprobe\n{\"case\":\"fault\",\"median\":1,\"min\":1,\"n\":1,\"p10\":1,\"p90\":1}\n\
                    bench-trace {\"type\":\"end\",\"registrations\":7,\"lost_registration_records\":1,\
                    \"lost_buffer_records\":2}";
        let rounds = rounds(&lines(text), &[Mode::Trace(Attach::Kprobe)], &[Case::Fault]).unwrap();
        assert_eq!((rounds[0].seen, rounds[0].lost), (Some(7), Some(3)));
    }

    #[test]
    fn disk_reads_use_the_minimum() {
        let alone = round(Mode::Alone, &[(Case::Fault, 10), (Case::Odirect, 10)]);
        assert_eq!((alone.figure(Case::Fault), alone.figure(Case::Odirect)), (Some(10), Some(8)));
    }

    #[test]
    fn a_further_vma_is_a_63rd_of_what_64_add_beyond_one() {
        let alone = round(Mode::Alone, &[(Case::Pages1, 100), (Case::Vmas64, 1000)]);
        let daemon = round(MODES[1], &[(Case::Pages1, 300), (Case::Vmas64, 1200 + 63 * 400)]);
        assert_eq!(further_vma(&alone, &daemon), Some(400.0));
        assert_eq!(further_vma(&alone, &round(MODES[1], &[(Case::Pages1, 300)])), None);
    }
}
