//! Cases as they are written in `cases/*.json`, one file a topic. What is not understood is refused, with the place named.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::fault::Fault;
use crate::value;

/// Names that every case has.
const GIVEN: [&str; 8] = ["client", "machine", "dir", "local", "case", "url", "api_key", "host"];

/// A behaviour that every language shows.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What is shown, as a sentence.
    pub name: String,
    /// The file that it stands in.
    #[serde(skip)]
    pub topic: String,
    /// The machine that it has. Default: none.
    #[serde(default)]
    pub machine: Machine,
    /// A project of its own, with this key. Default: the language's project, with a key of scope `admin`.
    #[serde(default)]
    pub key: Option<OwnKey>,
    /// How its client is set. Default: the language's one client.
    #[serde(default)]
    pub client: Option<ClientSettings>,
    /// Whether there is a proxy on the way that speaks HTTP/1.1 alone. Default: false.
    #[serde(default)]
    pub http1: bool,
    /// Languages that cannot say it, with the reason.
    #[serde(default)]
    pub except: BTreeMap<String, String>,
    /// What is done, in order.
    pub steps: Vec<Step>,
}

/// The machine of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Machine {
    /// It needs none, or makes its own.
    #[default]
    None,
    /// One for all cases that leave it as it was.
    Shared,
    /// One of its own, ended after it.
    Own,
}

/// A key of a case's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnKey {
    /// Whether it may make and revoke keys.
    #[serde(default)]
    pub admin: bool,
    /// Machines alive at once.
    #[serde(default = "many")]
    pub max_sandboxes: u32,
    /// Requests a second.
    #[serde(default = "plenty")]
    pub requests_per_second: u32,
}

/// A client of a case's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientSettings {
    /// How long each call may take.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// One call and what is to come of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What is called, such as `sandbox.run`.
    pub call: String,
    /// What it is called on, as an earlier step saved it. Default: the case's machine, for `client.…` its client.
    #[serde(default)]
    pub on: Option<String>,
    /// Its arguments.
    #[serde(default)]
    pub args: Map<String, Value>,
    /// What it answers, in part at least: the matchers are in [`value`].
    #[serde(default, deserialize_with = "even_null")]
    pub returns: Option<Value>,
    /// How it fails, in part at least.
    #[serde(default)]
    pub error: Option<Value>,
    /// The name by which later steps know the answer: `${name.field}` in their strings.
    #[serde(default)]
    pub save: Option<String>,
    /// What goes wrong on the way meanwhile. Each must strike as often as it says.
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// How many requests the call makes, by their pattern (`POST /sandboxes`), those that were struck included.
    #[serde(default)]
    pub requests: BTreeMap<String, Value>,
    /// Has the call cancelled once a request of this pattern has been answered.
    #[serde(default)]
    pub cancel_after: Option<String>,
    /// How often it is made at once. Default: 1.
    #[serde(default = "once")]
    pub together: usize,
    /// Whether it is made again until it goes as it is to.
    #[serde(default)]
    pub eventually: bool,
    /// Longest time that it may take. Default: a minute.
    #[serde(default = "a_minute")]
    pub within_ms: u64,
    /// Shortest time that it may take.
    #[serde(default)]
    pub at_least_ms: u64,
}

/// What is there, be it null.
fn even_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

fn many() -> u32 {
    32
}
fn plenty() -> u32 {
    100_000
}
fn once() -> usize {
    1
}
fn a_minute() -> u64 {
    60_000
}

impl Case {
    /// Whether its calls go through a proxy.
    pub fn needs_proxy(&self) -> bool {
        let looks =
            |step: &Step| !step.faults.is_empty() || !step.requests.is_empty() || step.cancel_after.is_some();
        self.http1 || self.steps.iter().any(looks)
    }

    /// Whether it has a client of its own.
    pub fn needs_client(&self) -> bool {
        self.needs_proxy() || self.key.is_some() || self.client.is_some()
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(!self.steps.is_empty(), "has no steps");
        let mut known: HashSet<&str> = GIVEN.into_iter().collect();
        for (number, step) in self.steps.iter().enumerate() {
            step.check(&known).with_context(|| format!("step {} ({})", number + 1, step.call))?;
            known.extend(step.save.as_deref());
        }
        Ok(())
    }
}

impl Step {
    fn check(&self, known: &HashSet<&str>) -> anyhow::Result<()> {
        ensure!(self.returns.is_none() || self.error.is_none(), "either returns or fails, not both");
        let asks = self.returns.is_some() || self.error.is_some() || self.save.is_some();
        ensure!(asks || !self.requests.is_empty(), "expects nothing: say what it returns, or its error");
        ensure!((1..=200).contains(&self.together), "together is 1 to 200");
        ensure!(
            self.together == 1 || (self.save.is_none() && self.cancel_after.is_none()),
            "what is made together cannot be saved or cancelled"
        );
        ensure!(self.within_ms <= 120_000, "within_ms is at most 120,000");
        let on = self.on.as_deref().map(|on| on.split('.').next().unwrap_or(on));
        let args = Value::Object(self.args.clone());
        let expected = self.returns.as_ref().or(self.error.as_ref());
        let names =
            std::iter::once(&args).chain(expected).flat_map(value::names).chain(on.map(str::to_owned));
        for name in names {
            if !known.contains(name.as_str()) {
                bail!("'{name}' was saved by no step before");
            }
        }
        if let Some(expected) = expected {
            value::check(expected)?;
        }
        for pattern in
            self.faults.iter().map(|fault| &fault.on).chain(self.requests.keys()).chain(&self.cancel_after)
        {
            ensure!(
                pattern.split_once(" /").is_some(),
                "'{pattern}' is no pattern such as 'POST /sandboxes/*/fork'"
            );
        }
        Ok(())
    }
}

/// Reads all topics of a folder.
pub fn load(folder: &Path) -> anyhow::Result<Vec<Case>> {
    let mut files: Vec<_> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let topic = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file)?;
        cases.extend(parse(&topic, &text).with_context(|| format!("{}", file.display()))?);
    }
    let mut names = HashSet::new();
    if let Some(twice) = cases.iter().find(|case| !names.insert((case.topic.as_str(), case.name.as_str()))) {
        bail!("{}: two cases are named '{}'", twice.topic, twice.name);
    }
    Ok(cases)
}

/// Reads one topic.
pub fn parse(topic: &str, text: &str) -> anyhow::Result<Vec<Case>> {
    let values: Vec<Value> = serde_json::from_str(text)?;
    let read = |(index, value): (usize, Value)| {
        let name = value.get("name").map_or_else(|| format!("case {}", index + 1), ToString::to_string);
        let case: anyhow::Result<Case> = serde_json::from_value(value).map_err(Into::into);
        let case =
            case.and_then(|case: Case| case.check().map(|()| Case { topic: topic.to_owned(), ..case }));
        case.with_context(|| name)
    };
    values.into_iter().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        format!("{:#}", parse("topic", text).unwrap_err())
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_place() {
        let unknown = refusal(r#"[{"name": "one", "steps": [{"call": "a.b", "retruns": 1}]}]"#);
        assert!(unknown.contains("\"one\"") && unknown.contains("retruns"), "{unknown}");
        let unsaved = refusal(
            r#"[{"name": "one", "steps": [{"call": "a.b", "args": {"x": "-${p.id}"}, "returns": 1}]}]"#,
        );
        assert!(unsaved.contains("step 1 (a.b)") && unsaved.contains("'p' was saved"), "{unsaved}");
        let matcher = refusal(r#"[{"name": "one", "steps": [{"call": "a.b", "returns": {"$like": 1}}]}]"#);
        assert!(matcher.contains("$like"), "{matcher}");
        let idle = refusal(r#"[{"name": "one", "steps": [{"call": "a.b"}]}]"#);
        assert!(idle.contains("expects nothing"), "{idle}");
    }

    #[test]
    fn the_suite_is_well_formed() {
        let cases = load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("cases")).unwrap();
        assert!(cases.len() >= 150, "{} cases", cases.len());
    }
}
