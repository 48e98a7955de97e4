//! Costs of the daemon itself: memory, scrapes, wake-ups, start. Pure.

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::goals::self_cost_goal;

/// Measured costs; `None` where there is no measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SelfCost {
    resident_kib: Option<u64>,
    scrape_ns: Option<u64>,
    wakeups: Option<u64>,
    crowded_scrape_ns: Option<u64>,
    crowded_resident_kib: Option<u64>,
    start_ns: Option<u64>,
    empty_start_ns: Option<u64>,
    peak_kib: Option<u64>,
}

/// One of the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Resident memory of the idle daemon after 200 scrapes, in MiB.
    Resident,
    /// CPU time of the daemon for one scrape, in user space and the kernel, in milliseconds at one instruction per
    /// nanosecond.
    Scrape,
    /// Like `Scrape`, but with 200 workloads: the default limit of workloads with series of their own.
    CrowdedScrape,
    /// Resident memory after `CrowdedScrape`, in MiB.
    CrowdedResident,
    /// Wake-ups of the daemon's threads in 20 s without any activity.
    Wakeups,
    /// Time from exec to the first answer, relative to the time that an empty program of the same library takes to
    /// attach.
    Start,
    /// Peak of resident memory until the daemon serves, in MiB.
    Peak,
}

impl Figure {
    pub const ALL: [Self; 7] = [
        Self::Resident,
        Self::Scrape,
        Self::CrowdedScrape,
        Self::CrowdedResident,
        Self::Wakeups,
        Self::Start,
        Self::Peak,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Resident => "resident_mib",
            Self::Scrape => "scrape_ms",
            Self::CrowdedScrape => "scrape_ms_at_200_workloads",
            Self::CrowdedResident => "resident_mib_at_200_workloads",
            Self::Wakeups => "wakeups",
            Self::Start => "start_ratio",
            Self::Peak => "start_peak_mib",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::Resident => "MiB resident after 200 scrapes",
            Self::Scrape => "ms per scrape, at an instruction per ns",
            Self::CrowdedScrape => "ms per scrape with 200 workloads, at an instruction per ns",
            Self::CrowdedResident => "MiB resident with 200 workloads",
            Self::Wakeups => "wake-ups in 20 s without activity",
            Self::Start => "times the start of an empty program",
            Self::Peak => "MiB peak during the start",
        }
    }

    pub fn value(self, self_cost: &SelfCost) -> Option<f64> {
        match self {
            Self::Resident => self_cost.resident_kib.map(|kib| kib as f64 / 1024.0),
            Self::Scrape => self_cost.scrape_ns.map(|ns| ns as f64 / 1e6),
            Self::CrowdedScrape => self_cost.crowded_scrape_ns.map(|ns| ns as f64 / 1e6),
            Self::CrowdedResident => self_cost.crowded_resident_kib.map(|kib| kib as f64 / 1024.0),
            Self::Wakeups => self_cost.wakeups.map(|count| count as f64),
            Self::Peak => self_cost.peak_kib.map(|kib| kib as f64 / 1024.0),
            Self::Start => {
                self_cost.start_ns.zip(self_cost.empty_start_ns).map(|(daemon, empty)| daemon as f64 / empty as f64)
            }
        }
    }

    /// Whether the goal is met; `None` without a figure.
    pub fn met(self, self_cost: &SelfCost) -> Option<bool> {
        Some(self.value(self_cost)? <= self_cost_goal(self))
    }
}

impl SelfCost {
    /// Reads a line of the guest's output. Returns whether it is about the daemon's costs.
    pub fn read_line(&mut self, line: &str) -> Result<bool> {
        let fields = [
            ("bench-scraped-resident ", &mut self.resident_kib),
            ("bench-scrape-ns ", &mut self.scrape_ns),
            ("bench-wakeups ", &mut self.wakeups),
            ("bench-crowded-scrape-ns ", &mut self.crowded_scrape_ns),
            ("bench-crowded-resident ", &mut self.crowded_resident_kib),
            ("bench-peak ", &mut self.peak_kib),
        ];
        for (prefix, field) in fields {
            if let Some(number) = line.strip_prefix(prefix) {
                *field = Some(number.parse().context("no number")?);
                return Ok(true);
            }
        }
        if !line.starts_with("{\"n\"") {
            return Ok(false);
        }
        // For example `{"n":5,"ns":120000000,"start":"empty"}`.
        let value: Value = serde_json::from_str(line)?;
        let time = value["ns"].as_u64();
        match value["start"].as_str() {
            Some("empty") => self.empty_start_ns = time,
            Some("daemon") => self.start_ns = time,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The measured figures for people, one line each.
    pub fn lines(&self, mode: &str) -> impl Iterator<Item = String> {
        let self_cost = *self;
        let mode = mode.to_owned();
        Figure::ALL.into_iter().filter_map(move |figure| {
            let value = figure.value(&self_cost)?;
            let mark = if figure.met(&self_cost) == Some(false) { "!" } else { "" };
            Some(format!("{mode}: {value:.2}{mark} {} (goal {})", figure.title(), self_cost_goal(figure)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_figures_with_goals() {
        let mut self_cost = SelfCost::default();
        assert!(Figure::ALL.into_iter().all(|figure| figure.value(&self_cost).is_none()));
        for line in [
            "bench-scraped-resident 12288",
            "bench-scrape-ns 15000000",
            "bench-wakeups 0",
            "{\"n\":5,\"ns\":100,\"start\":\"empty\"}",
            "{\"n\":5,\"ns\":250,\"start\":\"daemon\"}",
        ] {
            assert!(self_cost.read_line(line).unwrap(), "{line}");
        }
        assert!(!self_cost.read_line("{\"case\":\"pages1\",\"n\":5}").unwrap());
        assert!(self_cost.read_line("bench-wakeups ").is_err());
        let met = Figure::ALL.map(|figure| figure.met(&self_cost));
        assert_eq!(met, [Some(true), Some(true), None, None, Some(true), Some(true), None]);
        let lines: Vec<_> = self_cost.lines("daemon fentry").collect();
        assert_eq!(lines[0], "daemon fentry: 12.00 MiB resident after 200 scrapes (goal 12)");
        assert!(lines[1].starts_with("daemon fentry: 15.00 ms per scrape"));
        assert_eq!(lines[3], "daemon fentry: 2.50 times the start of an empty program (goal 2.5)");
        assert!(self_cost.read_line("bench-crowded-scrape-ns 15000001").unwrap());
        assert_eq!(Figure::CrowdedScrape.met(&self_cost), Some(false));
    }
}
