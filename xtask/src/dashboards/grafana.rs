//! The part of Grafana's JSON model (schema of Grafana 11) that these dashboards use.

use serde_json::{Value, json};

use super::query::expand;

/// Columns of Grafana's grid.
const COLUMNS: u32 = 24;
/// Schema version of Grafana 11.0; every later Grafana reads it.
const SCHEMA: u32 = 39;

/// A dashboard. Rows are laid out from top to bottom, the panels of a row from left to right.
pub struct Dashboard {
    pub uid: &'static str,
    pub title: &'static str,
    pub description: &'static str,
    pub variables: Vec<Value>,
    pub rows: Vec<Row>,
}

/// Panels below a heading.
pub struct Row {
    pub title: &'static str,
    pub panels: Vec<Panel>,
}

/// One panel. Each constructor starts one of a type; unset properties have Grafana's defaults.
pub struct Panel {
    kind: &'static str,
    title: &'static str,
    description: String,
    unit: &'static str,
    no_value: &'static str,
    queries: Vec<Query>,
    size: (u32, u32),
    defaults: Value,
    overrides: Vec<Value>,
    options: Value,
    transformations: Vec<Value>,
}

struct Query {
    expression: String,
    legend: &'static str,
    format: &'static str,
    instant: bool,
}

impl Panel {
    fn new(kind: &'static str, title: &'static str, description: impl Into<String>, options: Value) -> Self {
        Self {
            kind,
            title,
            description: description.into(),
            unit: "short",
            no_value: "",
            queries: Vec::new(),
            size: (8, 8),
            defaults: json!({}),
            overrides: Vec::new(),
            options,
            transformations: Vec::new(),
        }
    }

    /// Lines over time.
    pub fn lines(title: &'static str, description: impl Into<String>) -> Self {
        let options = json!({
            "legend": { "calcs": ["lastNotNull", "max"], "displayMode": "table", "placement": "bottom", "showLegend": true },
            "tooltip": { "mode": "multi", "sort": "desc" },
        });
        Self::new("timeseries", title, description, options).with(json!({
            "min": 0,
            "custom": custom("none", 8),
        }))
    }

    /// Stacked areas over time.
    pub fn areas(title: &'static str, description: impl Into<String>) -> Self {
        Self::lines(title, description).with(json!({ "custom": custom("normal", 35) }))
    }

    /// One number per series: its last value.
    pub fn stat(title: &'static str, description: impl Into<String>) -> Self {
        let options = json!({
            "colorMode": "value",
            "graphMode": "area",
            "justifyMode": "auto",
            "orientation": "auto",
            "percentChangeColorMode": "standard",
            "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
            "showPercentChange": false,
            "textMode": "auto",
            "wideLayout": true,
        });
        Self::new("stat", title, description, options).size(3, 4)
    }

    /// One bar per series: its last value.
    pub fn bars(title: &'static str, description: impl Into<String>) -> Self {
        let options = json!({
            "displayMode": "basic",
            "legend": { "calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": false },
            "maxVizHeight": 300,
            "minVizHeight": 16,
            "minVizWidth": 8,
            "namePlacement": "auto",
            "orientation": "horizontal",
            "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
            "showUnfilled": true,
            "sizing": "auto",
            "valueMode": "color",
        });
        Self::new("bargauge", title, description, options).with(json!({ "min": 0 }))
    }

    /// Rows and columns. The queries are instant queries, merged by their labels.
    pub fn table(title: &'static str, description: impl Into<String>) -> Self {
        let options = json!({
            "cellHeight": "sm",
            "frameIndex": 0,
            "showTypeIcons": false,
            "footer": { "countRows": false, "fields": "", "reducer": ["sum"], "show": false },
            "showHeader": true,
        });
        let mut panel = Self::new("table", title, description, options)
            .with(json!({ "custom": { "align": "auto", "cellOptions": { "type": "auto" }, "filterable": true, "inspect": false, "minWidth": 60 } }));
        panel.transformations.push(json!({ "id": "merge", "options": {} }));
        panel
    }

    /// Buckets of a histogram over time; `unit` is the unit of the measured value.
    pub fn heatmap(title: &'static str, description: impl Into<String>, unit: &'static str) -> Self {
        let options = json!({
            "calculate": false,
            "cellGap": 1,
            "cellValues": { "unit": "reqps" },
            "color": {
                "exponent": 0.5, "fill": "dark-orange", "mode": "scheme", "reverse": false, "scale": "exponential",
                "scheme": "Oranges", "steps": 64,
            },
            "exemplars": { "color": "rgba(255,0,255,0.7)" },
            "filterValues": { "le": 1e-9 },
            "legend": { "show": true },
            "rowsFrame": { "layout": "auto" },
            "selectionMode": "x",
            "showValue": "never",
            "tooltip": { "mode": "single", "showColorScale": false, "yHistogram": true },
            "yAxis": { "axisPlacement": "left", "reverse": false, "unit": unit },
        });
        Self::new("heatmap", title, description, options).with(json!({ "custom": {} }))
    }

    /// Markdown text.
    pub fn text(title: &'static str, content: &'static str) -> Self {
        let options = json!({ "code": { "language": "plaintext", "showLineNumbers": false, "showMiniMap": false }, "content": content, "mode": "markdown" });
        Self::new("text", title, "What the panels of this dashboard rest on.", options)
    }

    /// Unit, by Grafana's name.
    pub fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    /// Text shown if there is no series.
    pub fn no_value(mut self, text: &'static str) -> Self {
        self.no_value = text;
        self
    }

    /// Width in columns of 24, and height in units of 30 pixels.
    pub fn size(mut self, width: u32, height: u32) -> Self {
        self.size = (width, height);
        self
    }

    /// A query over the time range, with a legend in Grafana's template syntax.
    pub fn query(mut self, expression: &str, legend: &'static str) -> Self {
        let (format, instant) = match self.kind {
            "heatmap" => ("heatmap", false),
            "table" => ("table", true),
            "bargauge" => ("time_series", true),
            _ => ("time_series", false),
        };
        self.queries.push(Query { expression: expand(expression), legend, format, instant });
        self
    }

    /// Queries only the end of the time range, for expressions that already cover the range.
    pub fn at_the_end(mut self) -> Self {
        for query in &mut self.queries {
            query.instant = true;
        }
        if self.kind == "stat" {
            self = self.option("graphMode", json!("none"));
        }
        self
    }

    /// Colours by value. The first applies below the first bound.
    pub fn thresholds(self, lowest: &str, steps: &[(&str, f64)]) -> Self {
        let mut all = vec![json!({ "color": lowest, "value": null })];
        all.extend(steps.iter().map(|(color, value)| json!({ "color": color, "value": value })));
        self.with(json!({
            "color": { "mode": "thresholds" },
            "thresholds": { "mode": "absolute", "steps": all },
        }))
    }

    /// Adds defaults of fields, overriding those already set.
    pub fn with(mut self, defaults: Value) -> Self {
        put(&mut self.defaults, defaults);
        self
    }

    /// Sets one of the panel's own options.
    pub fn option(mut self, name: &str, value: Value) -> Self {
        self.options[name] = value;
        self
    }

    /// Sets properties of one field, by the field's name.
    pub fn field(mut self, name: &str, properties: &[(&str, Value)]) -> Self {
        let properties: Vec<_> = properties.iter().map(|(id, value)| json!({ "id": id, "value": value })).collect();
        self.overrides.push(json!({ "matcher": { "id": "byName", "options": name }, "properties": properties }));
        self
    }

    /// Sets a fixed colour for the series whose names match.
    pub fn color(mut self, pattern: &str, color: &str) -> Self {
        self.overrides.push(json!({
            "matcher": { "id": "byRegexp", "options": pattern },
            "properties": [{ "id": "color", "value": { "fixedColor": color, "mode": "fixed" } }],
        }));
        self
    }

    /// A table's columns from left to right: Grafana's names and ours. Other columns are hidden.
    pub fn columns(mut self, columns: &[(&str, &str)]) -> Self {
        let names: Vec<_> = columns.iter().map(|(name, _)| name).collect();
        let pairs = |of: &dyn Fn(usize) -> Value| -> Value {
            columns
                .iter()
                .enumerate()
                .map(|(at, (name, _))| ((*name).to_owned(), of(at)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        self.transformations.push(json!({ "id": "filterFieldsByName", "options": { "include": { "names": names } } }));
        self.transformations.push(json!({
            "id": "organize",
            "options": {
                "excludeByName": {},
                "includeByName": {},
                "indexByName": pairs(&|at| json!(at)),
                "renameByName": pairs(&|at| json!(columns[at].1)),
            },
        }));
        self
    }

    /// Sorts a table by a column, largest value first.
    pub fn sorted_by(self, column: &str) -> Self {
        self.option("sortBy", json!([{ "desc": true, "displayName": column }]))
    }

    fn json(&self, id: u32, place: (u32, u32)) -> Value {
        let mut defaults = json!({ "unit": self.unit, "noValue": self.no_value });
        put(&mut defaults, self.defaults.clone());
        let mut panel = json!({
            "id": id,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "gridPos": { "h": self.size.1, "w": self.size.0, "x": place.0, "y": place.1 },
            "options": self.options,
            "repeatDirection": "h",
            "transparent": false,
        });
        if self.kind == "text" {
            return panel;
        }
        panel["datasource"] = source();
        panel["fieldConfig"] = json!({ "defaults": defaults, "overrides": self.overrides });
        panel["targets"] = self.queries.iter().zip('A'..='Z').map(|(query, letter)| query.json(letter)).collect();
        if !self.transformations.is_empty() {
            panel["transformations"] = json!(self.transformations);
        }
        panel
    }
}

impl Query {
    fn json(&self, letter: char) -> Value {
        json!({
            "datasource": source(),
            "editorMode": "code",
            "expr": self.expression,
            "format": self.format,
            "instant": self.instant,
            "legendFormat": self.legend,
            "range": !self.instant,
            "refId": letter.to_string(),
        })
    }
}

impl Dashboard {
    /// The dashboard in Grafana's import format.
    pub fn json(&self) -> Value {
        json!({
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["pinscope"],
            "annotations": { "list": [restarts()] },
            "editable": true,
            "fiscalYearStartMonth": 0,
            "graphTooltip": 1,
            "links": [{
                "asDropdown": false, "icon": "external link", "includeVars": true, "keepTime": true,
                "tags": ["pinscope"], "targetBlank": false, "title": "pinscope",
                "tooltip": "The other dashboards of pinscope, over the same time and variables", "type": "dashboards", "url": "",
            }],
            "panels": self.panels(),
            "refresh": "1m",
            "schemaVersion": SCHEMA,
            "templating": { "list": self.variables },
            "time": { "from": "now-1h", "to": "now" },
            "timezone": "browser",
        })
    }

    fn panels(&self) -> Vec<Value> {
        let mut panels = Vec::new();
        let mut top = 0;
        for row in &self.rows {
            let id = panels.len() as u32 + 1;
            panels.push(json!({
                "id": id, "type": "row", "title": row.title, "collapsed": false,
                "gridPos": { "h": 1, "w": COLUMNS, "x": 0, "y": top }, "panels": [],
            }));
            top += 1;
            let (mut left, mut height) = (0, 0);
            for panel in &row.panels {
                if left + panel.size.0 > COLUMNS {
                    top += height;
                    (left, height) = (0, 0);
                }
                panels.push(panel.json(panels.len() as u32 + 1, (left, top)));
                left += panel.size.0;
                height = height.max(panel.size.1);
            }
            top += height;
        }
        panels
    }
}

pub(super) fn source() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

/// Annotation that marks restarts, at which counters begin at zero again.
fn restarts() -> Value {
    json!({
        "name": "pinscope started", "datasource": source(), "enable": true, "hide": false, "iconColor": "blue",
        "expr": expand("resets(pinscope_attached_seconds{<here>}[$__interval]) > 0"),
        "builtIn": 0,
    })
}

fn custom(stacking: &str, fill: u32) -> Value {
    json!({
        "drawStyle": "line", "fillOpacity": fill, "lineInterpolation": "linear", "lineWidth": 1, "showPoints": "auto",
        "pointSize": 4, "spanNulls": false, "stacking": { "group": "A", "mode": stacking },
    })
}

/// Merges the members of an object into another, replacing those with the same name.
pub(super) fn put(into: &mut Value, from: Value) {
    if let (Some(into), Value::Object(from)) = (into.as_object_mut(), from) {
        into.extend(from);
    }
}
