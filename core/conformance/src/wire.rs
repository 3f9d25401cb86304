//! What driver and executor say to each other, one JSON object a line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The call that asks an executor what its language has ([`Surface`]).
pub const SURFACE: &str = "surface";

/// From the driver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Order {
    /// Do this.
    Call(Call),
    /// Drop a call that is under way, by the language's own means.
    Cancel {
        /// The call's.
        id: u64,
        /// Always true.
        cancel: bool,
    },
}

/// A call to make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// Comes back with the answer.
    pub id: u64,
    /// What to do, such as `files.read`.
    pub call: String,
    /// The object to do it on: a handle that an earlier answer gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// Its arguments. Bytes stand as `{"$bytes": base64}`, here and in answers.
    pub args: Map<String, Value>,
    /// Whether it may come to be cancelled.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancellable: bool,
}

/// How a call went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The call's.
    pub id: u64,
    /// What it answered. An object that can be called on has its handle in it, as `$handle`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returns: Option<Value>,
    /// How it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Value>,
    /// The language's own public methods that the call went through, the telling one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<String>,
}

/// What a language has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Surface {
    /// The calls that it can make.
    pub calls: Vec<String>,
    /// Its public methods, found in the binding itself.
    pub methods: Vec<String>,
    /// Those of them that need no case, with the reason.
    pub exempt: BTreeMap<String, String>,
}
