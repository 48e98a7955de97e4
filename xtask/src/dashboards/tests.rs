//! Checks that dashboards and rules agree with the table of metrics.

use std::collections::{BTreeMap, BTreeSet};

use promql_parser::{
    label::{MatchOp, Matcher},
    parser::{self, Expr, VectorSelector},
    util::{ExprVisitor, walk_expr},
};
use serde_json::Value;

use super::{
    all as dashboards,
    expressions::{Expression, Use, all},
    folder, grafana,
};
use pinscope::sink::prometheus::{METRICS, Type};

/// Labels that Prometheus adds to every sample, and its own series about a target.
const OF_TARGETS: [&str; 2] = ["job", "instance"];
const OF_PROMETHEUS: [&str; 1] = ["up"];

/// Series by name, with their labels and, for buckets, the values of `le`.
struct Known(BTreeMap<String, (BTreeSet<String>, Option<Vec<f64>>)>);

impl Known {
    fn new(expressions: &[Expression]) -> Self {
        let mut known = BTreeMap::new();
        let mut add = |name: String, labels: &[&str], bounds: Option<Vec<f64>>| {
            let labels = labels.iter().chain(&OF_TARGETS).map(|&label| label.to_owned()).collect();
            known.insert(name, (labels, bounds));
        };
        for name in OF_PROMETHEUS {
            add(name.to_owned(), &[], None);
        }
        for (name, labels, kind) in METRICS.iter().map(|metric| (metric.name, metric.labels, Some(metric.kind))) {
            if let Some(Type::Histogram(bounds)) = kind {
                add(format!("{name}_bucket"), &[labels, &["le"]].concat(), Some(bounds.shown()));
                add(format!("{name}_sum"), labels, None);
                add(format!("{name}_count"), labels, None);
            } else {
                add(name.to_owned(), labels, None);
            }
        }
        for rule in expressions.iter().filter(|expression| expression.kind == Use::Recording) {
            // The level in a recording rule's name is the list of labels that it keeps, apart from the job.
            let name = rule.place.rsplit(": ").next().unwrap();
            let labels: Vec<_> = name.split(':').next().unwrap().split('_').collect();
            add(name.to_owned(), &labels, None);
        }
        Self(known)
    }
}

/// Visitor that collects the parts of an expression.
#[derive(Default)]
struct Parts {
    selectors: Vec<VectorSelector>,
    grouped: BTreeSet<String>,
    /// Labels that `label_replace` adds.
    made: BTreeSet<String>,
}

impl ExprVisitor for Parts {
    type Error = ();

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool, ()> {
        match expression {
            Expr::VectorSelector(selector) => self.selectors.push(selector.clone()),
            Expr::MatrixSelector(matrix) => self.selectors.push(matrix.vs.clone()),
            Expr::Aggregate(aggregate) => {
                let modifier = aggregate.modifier.iter();
                self.grouped.extend(modifier.flat_map(|modifier| modifier.labels().labels.clone()));
            }
            Expr::Call(call) if call.func.name == "label_replace" => {
                if let Some(Expr::StringLiteral(label)) = call.args.args.get(1).map(AsRef::as_ref) {
                    self.made.insert(label.val.clone());
                }
            }
            Expr::Binary(binary) => {
                if let Some(modifier) = &binary.modifier {
                    let matching = modifier.matching.iter().map(parser::LabelModifier::labels);
                    let labels = matching.chain(modifier.card.labels());
                    self.grouped.extend(labels.flat_map(|labels| labels.labels.clone()));
                }
            }
            _ => {}
        }
        Ok(true)
    }
}

fn parts(expression: &Expression) -> Parts {
    let parsed = parser::parse(&expression.text)
        .unwrap_or_else(|error| panic!("{}: {error}\n{}", expression.place, expression.text));
    let mut parts = Parts::default();
    walk_expr(&mut parts, &parsed).unwrap();
    parts
}

#[test]
fn every_expression_uses_metrics_and_labels_of_the_table() {
    let expressions = all("5m").unwrap();
    let known = Known::new(&expressions);
    assert!(expressions.len() > 150, "only {} expressions: they are not read as they are written", expressions.len());
    for expression in &expressions {
        let (place, parts) = (&expression.place, parts(expression));
        assert!(!parts.selectors.is_empty(), "{place} asks for no metric");
        let mut labels = BTreeSet::new();
        for selector in &parts.selectors {
            let name = selector.name.as_deref().unwrap_or_else(|| panic!("{place}: a selector without a name"));
            let (of_metric, bounds) =
                known.0.get(name).unwrap_or_else(|| panic!("{place}: no metric {name} in the table"));
            assert!(selector.matchers.or_matchers.is_empty(), "{place}: matchers with or");
            for matcher in &selector.matchers.matchers {
                assert!(of_metric.contains(&matcher.name), "{place}: {name} has no label {}", matcher.name);
                is_a_bound(place, matcher, bounds.as_deref());
            }
            labels.extend(of_metric.clone());
        }
        labels.extend(parts.made.clone());
        let foreign: Vec<_> = parts.grouped.difference(&labels).collect();
        assert!(foreign.is_empty(), "{place}: by {foreign:?}, which none of its metrics has");
    }
}

/// Checks that `le` names an existing bucket, however its bound is written: Prometheus 3 stores `1.0` where Prometheus
/// 2 stores `1`.
fn is_a_bound(place: &str, matcher: &Matcher, bounds: Option<&[f64]>) {
    let ("le", Some(bounds)) = (matcher.name.as_str(), bounds) else { return };
    let written = matcher.value.strip_suffix("([.]0)?").unwrap_or(&matcher.value);
    let bound: f64 = written.parse().unwrap_or_else(|_| panic!("{place}: le is {:?}", matcher.value));
    assert!(bound.is_infinite() || bounds.contains(&bound), "{place}: no bucket ends at {bound}");
    let is_whole = bound.is_finite() && bound.fract() == 0.0;
    let both = matches!(matcher.op, MatchOp::Re(_)) && written != matcher.value;
    assert!(!is_whole || both, "{place}: le={written:?} is not found in one of Prometheus 2 and 3");
}

fn panels() -> Vec<(String, Value)> {
    let of = |(name, dashboard): (&'static str, grafana::Dashboard)| {
        let json = dashboard.json();
        let panels = json["panels"].as_array().unwrap().clone();
        panels.into_iter().map(move |panel| (format!("{name}: {}", panel["title"].as_str().unwrap()), panel))
    };
    dashboards().into_iter().flat_map(of).collect()
}

#[test]
fn every_panel_says_what_it_is_its_unit_and_what_an_empty_one_means() {
    for (place, panel) in panels() {
        if panel["type"] == "row" {
            continue;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        assert!(text(&panel["description"]).ends_with('.'), "{place} has no description");
        if panel["type"] != "text" {
            let defaults = &panel["fieldConfig"]["defaults"];
            assert!(!text(&defaults["unit"]).is_empty(), "{place} has no unit");
            assert!(!text(&defaults["noValue"]).is_empty(), "{place} says \"No data\"");
            assert!(!panel["targets"].as_array().unwrap().is_empty(), "{place} asks for nothing");
        }
    }
}

#[test]
fn panels_lie_beside_each_other() {
    for (name, dashboard) in dashboards() {
        let json = dashboard.json();
        let mut taken = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for panel in json["panels"].as_array().unwrap() {
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: two panels of one id");
            let at = |member: &str| panel["gridPos"][member].as_u64().unwrap();
            for cell in (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y))) {
                assert!(cell.0 < 24 && taken.insert(cell), "{name}: {} lies on another", panel["title"]);
            }
        }
    }
}

#[test]
fn every_alert_has_its_section_in_the_runbook() {
    let alerts = std::fs::read_to_string(folder().join("rules/alerts.yml")).unwrap();
    let runbook = std::fs::read_to_string(folder().join("RUNBOOK.md")).unwrap();
    let tests = std::fs::read_to_string(folder().join("tests/alerts.yml")).unwrap();
    let names: Vec<_> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() > 8, "the alerts are not read as they are written");
    for name in names {
        assert!(runbook.lines().any(|line| line == format!("## {name}")), "no section {name} in RUNBOOK.md");
        assert!(alerts.contains(&format!("\"RUNBOOK.md#{}\"", name.to_lowercase())), "{name} has no runbook_url");
        assert!(tests.contains(&format!("alertname: {name}\n")), "{name} is not tested where it fires");
        // These cases: a restart, a host that is gone, a changed label, missing gauges.
        let nothing = tests.split("- name: nothing to say").nth(1).unwrap();
        assert!(
            nothing.contains(&format!("alertname: {name}, ")),
            "{name} is not tested where there is nothing to say"
        );
    }
}

#[test]
fn every_record_is_tested() {
    let tests = std::fs::read_to_string(folder().join("tests/recording.yml")).unwrap();
    for rule in all("5m").unwrap().iter().filter(|expression| expression.kind == Use::Recording) {
        let name = rule.place.rsplit(": ").next().unwrap();
        assert!(tests.contains(&format!("expr: '{name}")), "{name} has no test");
    }
}
