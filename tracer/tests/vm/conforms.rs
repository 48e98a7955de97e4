//! Holds a value against a JSON Schema, as far as ours go. Stricter than the schema: where it lists the keys of an object, no
//! others may be there. A keyword that is not known here is an error, so that none is passed over.

use serde_json::Value;

/// What only people read.
const NOTES: [&str; 6] = ["$schema", "title", "description", "format", "$defs", "default"];

/// Whether the value is as the schema says; the error has the first place that is not.
pub fn conforms(value: &Value, schema: &Value) -> Result<(), String> {
    Check { root: schema }.at(value, schema, "")
}

struct Check<'a> {
    root: &'a Value,
}

impl Check<'_> {
    fn at(&self, value: &Value, schema: &Value, path: &str) -> Result<(), String> {
        let rules = match schema {
            Value::Object(rules) => rules,
            Value::Bool(true) => return Ok(()),
            _ => return Err(format!("{path}: nothing may be here")),
        };
        for (keyword, rule) in rules {
            match keyword.as_str() {
                note if NOTES.contains(&note) => {}
                "$ref" => {
                    let pointer =
                        rule.as_str().and_then(|rule| rule.strip_prefix('#')).ok_or("a reference elsewhere")?;
                    let of = self.root.pointer(pointer).ok_or_else(|| format!("no {pointer} in the schema"))?;
                    self.at(value, of, path)?;
                }
                "type" => {
                    let one = |name: &Value| name.as_str().is_some_and(|name| is_of(value, name));
                    let fits = rule.as_array().map_or_else(|| one(rule), |names| names.iter().any(one));
                    if !fits {
                        return Err(format!("{path}: {value} is no {rule}"));
                    }
                }
                "const" if value != rule => return Err(format!("{path}: {value} is not {rule}")),
                "enum" if !rule.as_array().is_some_and(|all| all.contains(value)) => {
                    return Err(format!("{path}: {value} is none of {rule}"));
                }
                "minimum" if value.as_f64() < rule.as_f64() && value.is_number() => {
                    return Err(format!("{path}: {value} is below {rule}"));
                }
                "maximum" if value.as_f64() > rule.as_f64() && value.is_number() => {
                    return Err(format!("{path}: {value} is above {rule}"));
                }
                "anyOf" | "oneOf" => self.any(value, rule, path)?,
                "required" => {
                    let keys = rule.as_array().into_iter().flatten().filter_map(Value::as_str);
                    let missing =
                        value.as_object().and_then(|fields| keys.into_iter().find(|key| !fields.contains_key(*key)));
                    if let Some(key) = missing {
                        return Err(format!("{path}: no key {key}"));
                    }
                }
                "properties" => {
                    for (key, field) in value.as_object().into_iter().flatten() {
                        let of = rule.get(key).ok_or_else(|| format!("{path}: the schema has no key {key}"))?;
                        self.at(field, of, &format!("{path}.{key}"))?;
                    }
                }
                "additionalProperties"
                    if !rules.contains_key("properties") && !rules.contains_key("patternProperties") =>
                {
                    for (key, field) in value.as_object().into_iter().flatten() {
                        self.at(field, rule, &format!("{path}.{key}"))?;
                    }
                }
                // Ours are of maps whose keys are numbers: one pattern for all keys.
                "patternProperties" => {
                    let of = rule.as_object().and_then(|rules| rules.values().next()).ok_or("no pattern")?;
                    for (key, field) in value.as_object().into_iter().flatten() {
                        self.at(field, of, &format!("{path}.{key}"))?;
                    }
                }
                "propertyNames" => {
                    for key in value.as_object().into_iter().flatten().map(|(key, _)| key) {
                        self.at(&Value::String(key.clone()), rule, &format!("{path}.{key}"))?;
                    }
                }
                "const" | "enum" | "minimum" | "maximum" | "pattern" | "additionalProperties" => {}
                "items" => self.items(value, rule, path)?,
                "prefixItems" => {
                    let of = rule.as_array().into_iter().flatten();
                    for (place, (item, of)) in value.as_array().into_iter().flatten().zip(of).enumerate() {
                        self.at(item, of, &format!("{path}[{place}]"))?;
                    }
                }
                "minItems" | "maxItems" => {
                    let (count, bound) = (value.as_array().map_or(0, Vec::len) as u64, rule.as_u64().unwrap_or(0));
                    if value.is_array() && if keyword == "minItems" { count < bound } else { count > bound } {
                        return Err(format!("{path}: {count} items, {keyword} {bound}"));
                    }
                }
                other => return Err(format!("{path}: what does {other} mean?")),
            }
        }
        Ok(())
    }

    fn any(&self, value: &Value, rule: &Value, path: &str) -> Result<(), String> {
        let mut errors = Vec::new();
        for of in rule.as_array().into_iter().flatten() {
            match self.at(value, of, path) {
                Ok(()) => return Ok(()),
                Err(error) => errors.push(error),
            }
        }
        Err(format!("{path}: fits nothing: {}", errors.join("; ")))
    }

    fn items(&self, value: &Value, rule: &Value, path: &str) -> Result<(), String> {
        let items = value.as_array().into_iter().flatten().enumerate();
        items.into_iter().try_for_each(|(place, item)| self.at(item, rule, &format!("{path}[{place}]")))
    }
}

fn is_of(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}
