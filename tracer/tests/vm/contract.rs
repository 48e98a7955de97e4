//! What pinscope prints as JSON, against the schemas that are shipped.

use std::sync::LazyLock;

use anyhow::Context as _;
use serde_json::Value;

use crate::conforms::conforms;

static SCHEMAS: LazyLock<[(&str, Value); 4]> = LazyLock::new(|| {
    [
        ("report", include_str!("../../pkg/schema/report.schema.json")),
        ("trace", include_str!("../../pkg/schema/trace.schema.json")),
        ("audit", include_str!("../../pkg/schema/audit.schema.json")),
        ("doctor", include_str!("../../pkg/schema/doctor.schema.json")),
    ]
    .map(|(command, text)| (command, serde_json::from_str(text).unwrap_or_default()))
});

/// Whether what a command printed is as its schema says; it may have no key that the schema has not.
pub fn kept(command: &str, value: &Value) -> anyhow::Result<()> {
    let schema = SCHEMAS.iter().find(|(name, _)| *name == command).map(|(_, schema)| schema);
    let schema = schema.with_context(|| format!("no schema of {command}"))?;
    conforms(value, schema).map_err(|why| anyhow::anyhow!("{command} --json is not as its schema says: {why}"))
}
