//! Queries a real Prometheus for every expression.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use ureq::Agent;

use super::expressions::{Expression, Use};

/// Result of one query.
enum Found {
    /// Number of series.
    Series(usize),
    /// No series, for a legitimate reason.
    Excused(&'static str),
    /// No series.
    Nothing,
}

/// Queries the Prometheus at `address` at time `at` (seconds since 1970, default now) and prints expressions without
/// data. Fails if any of them should have data.
pub fn against(address: &str, at: Option<u64>, expressions: &[Expression]) -> Result<ExitCode> {
    let prometheus = Prometheus::new(address, at);
    let (mut answered, mut empty) = (0, 0);
    for expression in expressions {
        let found =
            ask(&prometheus, expression).with_context(|| format!("{}: {}", expression.place, expression.text))?;
        match found {
            Found::Series(series) if expression.kind == Use::Alert => {
                answered += 1;
                println!("fires: {} ({series})", expression.place);
            }
            Found::Series(_) => answered += 1,
            Found::Excused(why) => println!("empty: {}: {why}", expression.place),
            Found::Nothing => {
                empty += 1;
                println!("NO DATA: {}: {}", expression.place, expression.text);
            }
        }
    }
    println!("{} expressions: {answered} with data, {empty} unexpectedly without", expressions.len());
    Ok(if empty == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn ask(prometheus: &Prometheus, expression: &Expression) -> Result<Found> {
    let series = prometheus.series(&expression.text)?;
    if series > 0 {
        return Ok(Found::Series(series));
    }
    Ok(match expression.may_be_empty() {
        Some((why, None)) => Found::Excused(why),
        // For a histogram, the metric's name has no suffix.
        Some((why, Some(metric))) => {
            let there = prometheus.series(&format!("{{__name__=~\"{}(_bucket)?\"}}", metric.trim_end_matches('{')))?;
            if there == 0 { Found::Excused(why) } else { Found::Nothing }
        }
        None => Found::Nothing,
    })
}

struct Prometheus {
    agent: Agent,
    address: String,
    at: Option<u64>,
}

impl Prometheus {
    fn new(address: &str, at: Option<u64>) -> Self {
        let agent = Agent::config_builder().timeout_global(Some(Duration::from_secs(30))).http_status_as_error(false);
        Self { agent: agent.build().into(), address: address.trim_end_matches('/').to_owned(), at }
    }

    /// Number of series that the expression returns, without NaN values.
    fn series(&self, expression: &str) -> Result<usize> {
        let url = format!("{}/api/v1/query", self.address);
        let mut response = self
            .agent
            .get(&url)
            .query("query", expression)
            .query_pairs(self.at.map(|at| ("time", at.to_string())))
            .call()
            .with_context(|| format!("no Prometheus answers at {}", self.address))?;
        let text = response.body_mut().read_to_string().context("Prometheus closed the connection")?;
        let answer: Value = serde_json::from_str(&text).context("the answer is not JSON: is this a Prometheus?")?;
        if answer["status"] != "success" {
            bail!("Prometheus: {}", answer["error"].as_str().unwrap_or("no reason given"));
        }
        let result = answer["data"]["result"].as_array().context("the answer has no result")?;
        let number = |series: &&Value| series["value"][1].as_str().is_some_and(|value| value != "NaN");
        Ok(result.iter().filter(number).count())
    }
}
