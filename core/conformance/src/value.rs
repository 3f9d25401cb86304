//! References in what is asked, and matchers in what must come back: decided without I/O.
//!
//! In any string, `${name.field.0}` stands for what a step saved; where it is the whole string, for the value itself.
//! `{"$repeat": ["x", 5]}` is a string, `{"$text": "…"}` its bytes, `{"$bytes": "base64"}` bytes.
//!
//! An object is matched by one that has at least its fields, and null by what is absent too. Further matchers:
//! `$contains` (part of a string, or one of an array), `$starts_with`, `$at_least`, `$at_most`, `$length`, `$not`, `$any_of`.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// What steps saved, by name.
pub type Names = BTreeMap<String, Value>;

const MATCHERS: [&str; 10] = [
    "$bytes",
    "$text",
    "$repeat",
    "$contains",
    "$starts_with",
    "$at_least",
    "$at_most",
    "$length",
    "$not",
    "$any_of",
];

/// An object's one field that begins with a dollar.
fn special(map: &Map<String, Value>) -> Option<(&str, &Value)> {
    let (key, value) = map.iter().next()?;
    (map.len() == 1 && key.starts_with('$')).then_some((key.as_str(), value))
}

/// Refuses matchers that there are not.
pub fn check(expected: &Value) -> anyhow::Result<()> {
    match expected {
        Value::Array(values) => values.iter().try_for_each(check),
        Value::Object(map) => {
            if let Some(unknown) =
                map.keys().find(|key| key.starts_with('$') && !MATCHERS.contains(&key.as_str()))
            {
                bail!("there is no matcher {unknown}");
            }
            map.values().try_for_each(check)
        }
        _ => Ok(()),
    }
}

/// The names that a value refers to.
pub fn names(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => {
            references(text).map(|path| path.split('.').next().unwrap_or(path).to_owned()).collect()
        }
        Value::Array(values) => values.iter().flat_map(names).collect(),
        Value::Object(map) => map.values().flat_map(names).collect(),
        _ => Vec::new(),
    }
}

/// References in a string; what a shell has in braces otherwise (`${A-unset}`) is none.
fn references(text: &str) -> impl Iterator<Item = &str> {
    let is_path =
        |path: &&str| path.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.$".contains(c));
    text.split("${").skip(1).filter_map(|rest| rest.split_once('}')).map(|(path, _)| path).filter(is_path)
}

/// A value with all references followed, and strings and bytes written out.
pub fn resolve(value: &Value, names: &Names) -> anyhow::Result<Value> {
    Ok(match value {
        Value::String(text) => resolve_text(text, names)?,
        Value::Array(values) => {
            values.iter().map(|value| resolve(value, names)).collect::<anyhow::Result<_>>()?
        }
        Value::Object(map) => {
            let resolved: Map<String, Value> = map
                .iter()
                .map(|(key, value)| Ok((key.clone(), resolve(value, names)?)))
                .collect::<anyhow::Result<_>>()?;
            match special(&resolved) {
                Some(("$repeat", Value::Array(parts))) => match parts.as_slice() {
                    [Value::String(text), times] => {
                        let times = times.as_u64().context("$repeat needs how often")?;
                        text.repeat(usize::try_from(times)?).into()
                    }
                    _ => bail!("$repeat takes a string and how often"),
                },
                Some(("$text", Value::String(text))) => bytes(text.as_bytes()),
                _ => Value::Object(resolved),
            }
        }
        other => other.clone(),
    })
}

fn resolve_text(text: &str, names: &Names) -> anyhow::Result<Value> {
    if let Some(path) = references(text).next().filter(|path| text.len() == path.len() + "${}".len()) {
        return lookup(path, names).cloned();
    }
    let mut resolved = text.to_owned();
    for path in references(text) {
        let value = match lookup(path, names)? {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        resolved = resolved.replace(&format!("${{{path}}}"), &value);
    }
    Ok(resolved.into())
}

/// What a path such as `forks.0.sandbox_id` leads to.
pub fn lookup<'a>(path: &str, names: &'a Names) -> anyhow::Result<&'a Value> {
    let mut parts = path.split('.');
    let first = parts.next().unwrap_or_default();
    let mut value = names.get(first).with_context(|| format!("nothing was saved as '{first}'"))?;
    for part in parts {
        let next = match value {
            Value::Array(values) => part.parse::<usize>().ok().and_then(|index| values.get(index)),
            other => other.get(part),
        };
        value = next.with_context(|| format!("there is no '{part}' of '{path}' in {}", brief(value)))?;
    }
    Ok(value)
}

/// Bytes as they stand in JSON here.
pub fn bytes(data: &[u8]) -> Value {
    json!({ "$bytes": STANDARD.encode(data) })
}

/// The bytes that a value stands for: bytes, or a string's.
pub fn to_bytes(value: &Value) -> anyhow::Result<Vec<u8>> {
    match value {
        Value::String(text) => Ok(text.clone().into_bytes()),
        Value::Object(map) => match special(map) {
            Some(("$bytes", Value::String(text))) => Ok(STANDARD.decode(text)?),
            _ => bail!("{} are no bytes", brief(value)),
        },
        _ => bail!("{} are no bytes", brief(value)),
    }
}

/// Whether a value is as expected; where not, the place and what stands there.
pub fn matches(expected: &Value, actual: &Value) -> Result<(), String> {
    match_at("", expected, actual)
}

fn match_at(place: &str, expected: &Value, actual: &Value) -> Result<(), String> {
    let here = || if place.is_empty() { String::new() } else { format!("{place}: ") };
    let differs = || Err(format!("{}{} instead of {}", here(), brief(actual), brief(expected)));
    match (expected, actual) {
        (Value::Object(map), _) if special(map).is_some() => {
            let (matcher, operand) = special(map).unwrap_or(("", &Value::Null));
            if holds(matcher, operand, actual) { Ok(()) } else { differs() }
        }
        (Value::Object(wanted), Value::Object(found)) => wanted.iter().try_for_each(|(key, value)| {
            let place = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
            match_at(&place, value, found.get(key).unwrap_or(&Value::Null))
        }),
        (Value::Array(wanted), Value::Array(found)) => {
            if wanted.len() != found.len() {
                return Err(format!(
                    "{}{} elements instead of {}: {}",
                    here(),
                    found.len(),
                    wanted.len(),
                    brief(actual)
                ));
            }
            wanted.iter().zip(found).enumerate().try_for_each(|(index, (wanted, found))| {
                match_at(&format!("{place}[{index}]"), wanted, found)
            })
        }
        (Value::Number(wanted), Value::Number(found)) if wanted.as_f64() == found.as_f64() => Ok(()),
        _ if expected == actual => Ok(()),
        _ => differs(),
    }
}

fn holds(matcher: &str, operand: &Value, actual: &Value) -> bool {
    let number = |value: &Value| value.as_f64();
    match matcher {
        "$contains" => match (operand, actual) {
            (Value::String(part), Value::String(text)) => text.contains(part.as_str()),
            (part, Value::Array(values)) => values.iter().any(|value| matches(part, value).is_ok()),
            _ => false,
        },
        "$starts_with" => {
            matches!((operand, actual), (Value::String(begin), Value::String(text)) if text.starts_with(begin.as_str()))
        }
        "$at_least" => number(actual).zip(number(operand)).is_some_and(|(actual, least)| actual >= least),
        "$at_most" => number(actual).zip(number(operand)).is_some_and(|(actual, most)| actual <= most),
        "$length" => {
            let length = match actual {
                Value::Array(values) => Some(values.len()),
                Value::String(text) => Some(text.chars().count()),
                bytes => to_bytes(bytes).ok().map(|bytes| bytes.len()),
            };
            length.is_some_and(|length| matches(operand, &length.into()).is_ok())
        }
        "$not" => matches(operand, actual).is_err(),
        "$any_of" => operand.as_array().is_some_and(|any| any.iter().any(|one| matches(one, actual).is_ok())),
        // `$bytes`, and what `resolve` has made of the rest.
        _ => actual.get(matcher) == Some(operand),
    }
}

/// A value as a line of a report shows it.
pub fn brief(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 400 {
        return text;
    }
    let begin: String = text.chars().take(400).collect();
    format!("{begin}… ({} bytes)", text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_keep_their_type_unless_they_are_part_of_a_string() {
        let names = Names::from([("p".to_owned(), json!({"pid": 7, "ids": ["a", "b"]}))]);
        let resolved = resolve(&json!({"n": "${p.pid}", "s": "/proc/${p.pid}/${p.ids.1}"}), &names).unwrap();
        assert_eq!(resolved, json!({"n": 7, "s": "/proc/7/b"}));
        assert_eq!(resolve(&json!("${A-unset}"), &names).unwrap(), json!("${A-unset}"));
        let missing = resolve(&json!("${p.ids.2}"), &names).unwrap_err().to_string();
        assert!(missing.contains("'2'"), "{missing}");
    }

    #[test]
    fn strings_and_bytes_are_written_out() {
        let resolved =
            resolve(&json!([{"$repeat": ["ab", 2]}, {"$text": {"$repeat": ["x", 3]}}]), &Names::new());
        assert_eq!(resolved.unwrap(), json!(["abab", {"$bytes": "eHh4"}]));
    }

    #[test]
    fn an_object_is_matched_in_part_and_null_by_what_is_absent() {
        assert_eq!(matches(&json!({"a": 1, "c": null}), &json!({"a": 1.0, "b": 2})), Ok(()));
        let error = matches(&json!({"a": {"b": 1}}), &json!({"a": {"b": 2}})).unwrap_err();
        assert_eq!(error, "a.b: 2 instead of 1");
        assert!(matches(&json!({"a": 1}), &json!({})).is_err());
        assert!(matches(&json!({"a": null}), &json!({"a": false})).is_err());
    }

    #[test]
    fn arrays_are_matched_whole() {
        assert!(matches(&json!([1]), &json!([1, 2])).is_err());
        assert!(matches(&json!([1, 3]), &json!([1, 2])).is_err());
        assert_eq!(matches(&json!([1, {"a": 1}]), &json!([1, {"a": 1, "b": 1}])), Ok(()));
    }

    #[test]
    fn each_matcher_can_hold_and_fail() {
        for (expected, yes, no) in [
            (json!({"$contains": "b"}), json!("abc"), json!("a")),
            (json!({"$contains": {"n": 1}}), json!([{"n": 0}, {"n": 1}]), json!([{"n": 2}])),
            (json!({"$starts_with": "ab"}), json!("abc"), json!("cab")),
            (json!({"$at_least": 3}), json!(3), json!(2.9)),
            (json!({"$at_most": 3}), json!(3), json!(3.1)),
            (json!({"$length": 2}), json!([1, 2]), json!("a")),
            (json!({"$length": 3}), json!({"$bytes": "eHh4"}), json!({"$bytes": ""})),
            (json!({"$not": null}), json!(0), json!(null)),
            (json!({"$any_of": [1, 2]}), json!(2), json!(3)),
            (json!({"$bytes": "eHh4"}), json!({"$bytes": "eHh4"}), json!("xxx")),
        ] {
            assert_eq!(matches(&expected, &yes), Ok(()), "{expected}");
            assert!(matches(&expected, &no).is_err(), "{expected}");
        }
    }
}
