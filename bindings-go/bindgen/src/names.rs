//! Names as Go has them.

use heck::ToSnakeCase as _;

use crate::config::Config;

/// Words that Go writes in capitals, or otherwise than with one capital.
const INITIALISMS: &[(&str, &str)] = &[
    ("api", "API"),
    ("cpus", "CPUs"),
    ("dns", "DNS"),
    ("gid", "GID"),
    ("http", "HTTP"),
    ("icmp", "ICMP"),
    ("id", "ID"),
    ("mb", "MB"),
    ("oom", "OOM"),
    ("pid", "PID"),
    ("qemu", "QEMU"),
    ("tcp", "TCP"),
    ("udp", "UDP"),
    ("uid", "UID"),
    ("url", "URL"),
];

const KEYWORDS: &[&str] = &[
    "break",
    "case",
    "chan",
    "const",
    "continue",
    "default",
    "defer",
    "else",
    "fallthrough",
    "for",
    "func",
    "go",
    "goto",
    "if",
    "import",
    "interface",
    "map",
    "package",
    "range",
    "return",
    "select",
    "struct",
    "switch",
    "type",
    "var",
];

/// `sandbox_id` as `SandboxID`.
pub fn exported(name: &str) -> String {
    name.split('_').map(capitalised).collect()
}

/// `sandbox_id` as `sandboxID`.
pub fn local(name: &str) -> String {
    let (first, rest) = name.split_once('_').unwrap_or((name, ""));
    let name = format!("{first}{}", exported(rest));
    if KEYWORDS.contains(&name.as_str()) { name + "_" } else { name }
}

/// A type's name, in lower case where the package keeps it.
pub fn type_name(name: &str, config: &Config) -> String {
    if config.is_exported(name) { name.to_owned() } else { local(&name.to_snake_case()) }
}

/// A method's name, in lower case where the package keeps it or its type.
pub fn method(owner: &str, name: &str, config: &Config) -> String {
    let is_exported = config.is_exported(owner) && config.is_exported(&format!("{owner}.{name}"));
    if is_exported { exported(name) } else { local(name) }
}

/// A function's name, in lower case where the package keeps it.
pub fn function(name: &str, config: &Config) -> String {
    if config.is_exported(name) { exported(name) } else { local(name) }
}

/// A variant as a part of its constant's name: `DnsRefused` as `DNSRefused`.
pub fn variant(name: &str) -> String {
    exported(&word(name))
}

/// A variant as the word that stands for it.
pub fn word(variant: &str) -> String {
    variant.to_snake_case()
}

/// Documentation as Go has it, each line indented.
pub fn docs(text: Option<&str>, indent: &str) -> String {
    let lines = text.into_iter().flat_map(|text| text.trim().lines());
    lines.map(|line| format!("{indent}// {}", line.trim()).trim_end().to_owned() + "\n").collect()
}

fn capitalised(word: &str) -> String {
    if let Some((_, known)) = INITIALISMS.iter().find(|(plain, _)| *plain == word) {
        return (*known).to_owned();
    }
    let mut letters = word.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().collect::<String>() + letters.as_str())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_gos_customs() {
        assert_eq!(exported("sandbox_id"), "SandboxID");
        assert_eq!(exported("memory_used_mb"), "MemoryUsedMB");
        assert_eq!(exported("cpus"), "CPUs");
        assert_eq!(local("api_key"), "apiKey");
        assert_eq!(local("key_id"), "keyID");
        assert_eq!(local("type"), "type_");
        assert_eq!(word("InProgress"), "in_progress");
        assert_eq!(variant("InProgress"), "InProgress");
        assert_eq!(variant("DnsRefused"), "DNSRefused");
    }

    #[test]
    fn what_is_kept_begins_in_lower_case() {
        let config =
            Config::parse("[bindings.go]\nunexported = [\"SwarmPlan\", \"Sandbox.run_native\"]").unwrap();
        assert_eq!(type_name("SwarmPlan", &config), "swarmPlan");
        assert_eq!(type_name("Sandbox", &config), "Sandbox");
        assert_eq!(method("Sandbox", "run_native", &config), "runNative");
        assert_eq!(method("Sandbox", "info", &config), "Info");
        assert_eq!(method("SwarmPlan", "next", &config), "next");
    }
}
