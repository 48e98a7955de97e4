//! All expressions of the dashboards and the rules, with Grafana's variables filled in.

use std::fs;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use yaml_rust2::{Yaml, YamlLoader};

use super::{all as dashboards, listed, shown};

/// Expressions that may return nothing, with the reason. Each is identified by a metric that has to be absent, or by a
/// part of its place.
const EMPTY: [Excuse; 19] = [
    Excuse::Absent("pinscope_registered_bytes", "only with --rings"),
    Excuse::Absent("pinscope_registered_buffers", "only with --rings"),
    Excuse::Absent("pinscope_pinned_bytes", "only with --rings"),
    Excuse::Absent("pinscope_registered_unknown_rings", "only with --rings"),
    Excuse::Absent("pinscope_registered_lower_bound", "only with --rings"),
    Excuse::Absent("pinscope_workload_registered_bytes", "only with --rings"),
    Excuse::Absent("pinscope_workload_pinned_bytes", "only with --rings"),
    Excuse::Absent("pinscope_degraded_reason{", "only where a figure is unavailable"),
    Excuse::Absent("pinscope_phase_seconds_total", "only with --phases"),
    Excuse::Absent("pinscope_mmap_lock_wait_seconds", "only with --locks"),
    Excuse::Absent("pinscope_ring_age_seconds", "only with --rings"),
    Excuse::Absent("pinscope_ring_gap_seconds", "only with --rings"),
    Excuse::Absent("pinscope_vma_lookups_total", "only with --lookups"),
    Excuse::Absent("pinscope_program_run_seconds_total", "only with --stats"),
    Excuse::Absent("pinscope_policy_answers_total", "only where the kernel's rule is known"),
    Excuse::Place("host.json: Not seen", "nothing was missed"),
    Excuse::Place("upgrade.json: From kernel to kernel (B)", "this kernel refused nothing that another accepts"),
    Excuse::Place("upgrade.json: Refused here, accepted there", "this kernel refused nothing that another accepts"),
    Excuse::Place("pinscope started", "an annotation: pinscope has not restarted"),
];

enum Excuse {
    /// Nothing if this metric (or histogram) is absent.
    Absent(&'static str, &'static str),
    /// Nothing at a place whose name contains this.
    Place(&'static str, &'static str),
}

/// Where an expression is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    Panel,
    Variable,
    Recording,
    /// Returns series only if something is wrong.
    Alert,
}

/// An expression that Prometheus accepts as it is.
pub struct Expression {
    /// File, panel or rule, and the query's letter.
    pub place: String,
    pub kind: Use,
    pub text: String,
}

impl Expression {
    /// JSON for other programs: place, kind, expression, why it may be empty, and the metric that has to be absent in
    /// this case.
    pub fn json(&self) -> Value {
        let kind = match self.kind {
            Use::Panel => "panel",
            Use::Variable => "variable",
            Use::Recording => "recording",
            Use::Alert => "alert",
        };
        let mut value = json!({ "place": self.place, "kind": kind, "expression": self.text });
        if let Some((reason, absent)) = self.may_be_empty() {
            value["may_be_empty"] = json!({ "reason": reason, "where_absent": absent });
        }
        value
    }

    /// The reason why it may return nothing, and the metric whose absence is the condition, if there is one.
    pub fn may_be_empty(&self) -> Option<(&'static str, Option<&'static str>)> {
        if self.kind == Use::Alert {
            return Some(("an alert: nothing is wrong", None));
        }
        EMPTY.iter().find_map(|excuse| match excuse {
            Excuse::Absent(metric, why) if self.text.contains(metric) => Some((*why, Some(*metric))),
            Excuse::Place(place, why) if self.place.contains(place) => Some((*why, None)),
            _ => None,
        })
    }
}

/// All expressions. `window` replaces Grafana's rate interval, interval and range.
pub fn all(window: &str) -> Result<Vec<Expression>> {
    let mut all = Vec::new();
    for (name, dashboard) in dashboards() {
        of_dashboard(name, &dashboard.json(), window, &mut all);
    }
    for path in listed("rules", "yml")? {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        of_rules(&shown(&path), &text, &mut all)?;
    }
    Ok(all)
}

fn of_dashboard(name: &str, dashboard: &Value, window: &str, all: &mut Vec<Expression>) {
    let mut add = |place: String, kind: Use, text: &str| all.push(Expression { place, kind, text: fill(text, window) });
    for panel in items(&dashboard["panels"]) {
        let title = word(&panel["title"]);
        for target in items(&panel["targets"]) {
            add(format!("{name}: {title} ({})", word(&target["refId"])), Use::Panel, word(&target["expr"]));
        }
    }
    for annotation in items(&dashboard["annotations"]["list"]) {
        add(format!("{name}: annotation {}", word(&annotation["name"])), Use::Panel, word(&annotation["expr"]));
    }
    for variable in items(&dashboard["templating"]["list"]) {
        // For example `label_values(SELECTOR, LABEL)`.
        let query = word(&variable["query"]["query"]);
        let selector = query.strip_prefix("label_values(").and_then(|query| query.rsplit_once(", "));
        if let Some((selector, label)) = selector {
            let label = label.trim_end_matches(')');
            add(
                format!("{name}: variable {}", word(&variable["name"])),
                Use::Variable,
                &format!("count by ({label}) ({selector})"),
            );
        }
    }
}

/// Fills in Grafana's variables, longer names first.
fn fill(text: &str, window: &str) -> String {
    let values = [
        ("$__rate_interval", window),
        ("$__interval", window),
        ("$__range", window),
        ("$instance", ".*"),
        ("$workload", ".*"),
        ("$policy", ".*"),
        ("$job", ".*"),
    ];
    values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
}

fn of_rules(file: &str, text: &str, all: &mut Vec<Expression>) -> Result<()> {
    let documents = YamlLoader::load_from_str(text).with_context(|| format!("{file} is no YAML"))?;
    let groups = documents.first().and_then(|document| document["groups"].as_vec());
    for rule in groups.into_iter().flatten().filter_map(|group| group["rules"].as_vec()).flatten() {
        let (name, kind) = match (rule["record"].as_str(), rule["alert"].as_str()) {
            (Some(name), None) => (name, Use::Recording),
            (None, Some(name)) => (name, Use::Alert),
            _ => bail!("{file}: a rule that is neither a record nor an alert"),
        };
        let Yaml::String(text) = &rule["expr"] else { bail!("{file}: {name} has no expression") };
        all.push(Expression { place: format!("{file}: {name}"), kind, text: text.clone() });
    }
    Ok(())
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
