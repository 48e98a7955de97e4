//! JSON Schema of what the commands print, and the list of keys in json.md, both from the types that are printed.

use std::fmt::Write as _;

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Value;

use super::{audit, doctor, human, json, trace};

/// Columns of the document.
const WIDTH: usize = 120;

/// What a command prints with `--json`, by its name: the schema of the object, for `trace` of each line.
pub fn schemas() -> [(&'static str, Value); 4] {
    [
        ("report", schema::<json::Report<'_>>()),
        ("trace", schema::<trace::Line<'_>>()),
        ("audit", schema::<audit::Report<'_>>()),
        ("doctor", schema::<doctor::json::Doctor<'_>>()),
    ]
}

fn schema<T: JsonSchema>() -> Value {
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut schema = generator.into_root_schema_for::<T>().to_value();
    for_readers(&mut schema);
    schema
}

/// The descriptions come from rustdoc: its links say nothing here, and what is `None` there is null here.
fn for_readers(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if key == "description" => *text = plain(text),
                    other => for_readers(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(for_readers),
        _ => {}
    }
}

/// Without links, and in one line: "[`SelfUsage`](path)" is "`SelfUsage`".
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, link)) = rest.split_once("[`") {
        plain.push_str(before);
        let Some((name, after)) = link.split_once("`]") else {
            plain.push_str("[`");
            rest = link;
            continue;
        };
        let name = name.rsplit_once("::").map_or(name, |(_, name)| name);
        // Writing to a string cannot fail.
        let _ = write!(plain, "`{name}`");
        let target = after.strip_prefix('(').and_then(|target| target.split_once(')'));
        rest = target.map_or(after, |(_, after)| after);
    }
    plain.push_str(rest);
    let words: Vec<_> = plain.split_whitespace().collect();
    words.join(" ").replace("`None`", "null")
}

/// The part of json.md that lists the keys.
pub fn keys_markdown() -> String {
    let mut text = String::new();
    for (command, schema) in schemas() {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n## {command}\n\n");
        if let Some(about) = description(&schema) {
            text.push_str(&human::wrapped(about, WIDTH).join("\n"));
            text.push_str("\n\n");
        }
        match schema["oneOf"].as_array() {
            Some(lines) => lines.iter().for_each(|line| line_of(&mut text, line)),
            None => text.push_str(&keys(&schema)),
        }
        for (name, of) in schema["$defs"].as_object().into_iter().flatten() {
            let body = keys(of);
            let about = description(of).map(|about| format!(": {about}")).unwrap_or_default();
            let head = human::wrapped(&format!("**{name}**{about}"), WIDTH).join("\n");
            let _ = write!(text, "\n{head}\n{}{body}", if body.is_empty() { "" } else { "\n" });
        }
    }
    text
}

/// A kind of line of a trace.
fn line_of(text: &mut String, line: &Value) {
    let about = description(line).unwrap_or_default();
    let kind = line["properties"]["type"]["const"].as_str().unwrap_or_default();
    let head = human::wrapped(&format!("**type `{kind}`**: {about}"), WIDTH).join("\n");
    // Writing to a string cannot fail.
    let _ = write!(text, "{head}\n\n{}\n", keys(line));
}

/// A line for each key, or for each value of an enum.
fn keys(schema: &Value) -> String {
    let mut text = String::new();
    for (key, of) in schema["properties"].as_object().into_iter().flatten() {
        let required = schema["required"].as_array().is_some_and(|keys| keys.iter().any(|one| one == key));
        let kind = if required { kind(of) } else { format!("{}, if any", kind(of)) };
        text.push_str(&item(key, &format!(" ({kind})"), description(of)));
    }
    for of in schema["oneOf"].as_array().into_iter().flatten() {
        if let Some(value) = of["const"].as_str() {
            text.push_str(&item(value, "", description(of)));
        } else if let Some((key, of_key)) = of["properties"].as_object().and_then(|keys| keys.iter().next()) {
            text.push_str(&item(key, &format!(" ({})", kind(of_key)), description(of)));
        }
    }
    for value in schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        text.push_str(&item(value, "", None));
    }
    text
}

fn item(key: &str, kind: &str, about: Option<&str>) -> String {
    let about = about.map(|about| format!(": {about}")).unwrap_or_default();
    human::wrapped(&format!("- `{key}`{kind}{about}"), WIDTH - 2).join("\n  ") + "\n"
}

fn description(schema: &Value) -> Option<&str> {
    schema["description"].as_str()
}

/// The type in a few words.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return name.to_owned();
    }
    if let Some(value) = schema.get("const") {
        return value.to_string();
    }
    let all = ["anyOf", "oneOf", "allOf"].into_iter().find_map(|key| schema[key].as_array());
    if let Some(all) = all {
        return all.iter().map(kind).collect::<Vec<_>>().join(" or ");
    }
    match &schema["type"] {
        Value::Array(types) => {
            let one = |name: &Value| {
                let mut fields = schema.as_object().cloned().unwrap_or_default();
                fields.insert("type".to_owned(), name.clone());
                kind(&fields.into())
            };
            types.iter().map(one).collect::<Vec<_>>().join(" or ")
        }
        Value::String(name) if name == "array" => format!("list of {}", kind(&schema["items"])),
        Value::String(name) if name == "object" && schema["additionalProperties"].is_object() => {
            format!("object of {}", kind(&schema["additionalProperties"]))
        }
        Value::String(name) => name.clone(),
        _ => "any".to_owned(),
    }
}

#[cfg(test)]
mod tests;
