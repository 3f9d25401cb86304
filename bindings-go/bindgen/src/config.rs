use std::collections::BTreeSet;

use anyhow::{Context as _, Result};

/// What the crate's `uniffi.toml` says under `[bindings.go]`.
pub struct Config {
    /// Types, functions and methods (`Type.method`), by their Rust names, that Go keeps to its package.
    unexported: BTreeSet<String>,
}

impl Config {
    pub fn parse(text: &str) -> Result<Self> {
        let table: toml::Table = text.parse().context("uniffi.toml")?;
        let list = table.get("bindings").and_then(|it| it.get("go")).and_then(|it| it.get("unexported"));
        let names = list.and_then(toml::Value::as_array).into_iter().flatten();
        let name = |it: &toml::Value| it.as_str().map(str::to_owned).context("unexported holds names");
        Ok(Self { unexported: names.map(name).collect::<Result<_>>()? })
    }

    pub fn is_exported(&self, name: &str) -> bool {
        !self.unexported.contains(name)
    }
}
