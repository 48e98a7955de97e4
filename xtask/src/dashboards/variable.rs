//! Variables of the dashboards.

use serde_json::{Value, json};

use super::grafana::{put, source};

/// A choice among the values of a label. With `all`, several values or all of them can be chosen.
pub fn variable(name: &str, label: &str, description: &str, values: &str, all: bool) -> Value {
    let mut variable = blank("query", name, label, description);
    put(
        &mut variable,
        json!({
            "datasource": source(),
            "query": { "qryType": 1, "query": format!("label_values({values}, {name})"), "refId": "values" },
            "includeAll": all, "multi": all, "refresh": 2, "regex": "", "sort": 1,
            "current": { "text": "", "value": "" },
        }),
    );
    if all {
        variable["allValue"] = json!(".*");
        variable["current"] = json!({ "selected": true, "text": ["All"], "value": ["$__all"] });
    }
    variable
}

/// The scrape jobs of pinscope. "All" expands to their names, because other jobs also have `up` and the process
/// metrics.
pub fn job() -> Value {
    let mut variable = variable("job", "Job", "The scrape jobs of pinscope.", "pinscope_info", true);
    if let Some(members) = variable.as_object_mut() {
        members.remove("allValue");
    }
    variable
}

/// A choice among the given words, initially all of them.
pub fn choice(name: &str, label: &str, description: &str, values: &[&str]) -> Value {
    let option = |text: &str, value: &str, selected| json!({ "selected": selected, "text": text, "value": value });
    let all = option("All", "$__all", true);
    let options = std::iter::once(all).chain(values.iter().map(|value| option(value, value, false)));
    let mut variable = blank("custom", name, label, description);
    put(
        &mut variable,
        json!({
            "query": values.join(","), "options": options.collect::<Vec<_>>(), "includeAll": true, "multi": true,
            "allValue": ".*", "current": { "selected": true, "text": ["All"], "value": ["$__all"] },
        }),
    );
    variable
}

/// Choice of the Prometheus data source.
pub fn data_source() -> Value {
    let mut variable = blank("datasource", "datasource", "Data source", "The Prometheus that scrapes pinscope.");
    put(
        &mut variable,
        json!({ "query": "prometheus", "regex": "", "refresh": 1, "current": { "text": "", "value": "" } }),
    );
    variable
}

/// Members common to variables of all types. The schema requires those of a time interval in each of them.
fn blank(kind: &str, name: &str, label: &str, description: &str) -> Value {
    json!({
        "type": kind, "name": name, "label": label, "description": description, "hide": 0, "includeAll": false,
        "multi": false, "options": [], "skipUrlSync": false, "allowCustomValue": true,
        "auto": false, "auto_count": 30, "auto_min": "10s",
    })
}
