//! Every expression, asked of a real Prometheus.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use ureq::Agent;

use super::expressions::{Expression, Use};

/// What became of one.
enum Found {
    /// So many series.
    Series(usize),
    /// None, which is right here.
    Excused(&'static str),
    /// None.
    Nothing,
}

/// Asks the Prometheus at `address` for the time `at` (seconds since 1970, or now) and prints what has no data. Fails if that is
/// not excused.
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
    println!("{} expressions: {answered} with data, {empty} without that should have some", expressions.len());
    Ok(if empty == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn ask(prometheus: &Prometheus, expression: &Expression) -> Result<Found> {
    let series = prometheus.series(&expression.text)?;
    if series > 0 {
        return Ok(Found::Series(series));
    }
    Ok(match expression.may_be_empty() {
        Some((why, None)) => Found::Excused(why),
        // A histogram's name is that of its series without an end.
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

    /// How many series an expression has now, those that are no number left out.
    fn series(&self, expression: &str) -> Result<usize> {
        let url = format!("{}/api/v1/query", self.address);
        let mut response = self
            .agent
            .get(&url)
            .query("query", expression)
            .query_pairs(self.at.map(|at| ("time", at.to_string())))
            .call()
            .with_context(|| format!("no Prometheus answers at {}", self.address))?;
        let text = response.body_mut().read_to_string().context("Prometheus broke off")?;
        let answer: Value = serde_json::from_str(&text).context("the answer is no JSON: is this a Prometheus?")?;
        if answer["status"] != "success" {
            bail!("Prometheus: {}", answer["error"].as_str().unwrap_or("no reason given"));
        }
        let result = answer["data"]["result"].as_array().context("the answer has no result")?;
        let number = |series: &&Value| series["value"][1].as_str().is_some_and(|value| value != "NaN");
        Ok(result.iter().filter(number).count())
    }
}
