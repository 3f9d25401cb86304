//! The core's public methods, found in its source.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use forkyard_conformance::wire::Surface;
use syn::{ImplItem, Item, Type, UseTree, Visibility};

use crate::call::{Failure, NAMES, Outcome};

/// Methods that need no case here.
const EXEMPT: &[(&str, &str)] = &[
    ("Client::create_watched", "for the command line alone; the server's tests run it"),
    ("ClientBuilder::max_retries", "for tests that must see the first failure; languages keep the default"),
    ("Error::is_retryable", "of the code alone, and tested with it"),
    ("Error::new", "for bindings, which make errors of their own"),
    ("Handle::kill_in_background", "for bindings: what a dropped run does by itself"),
    ("Process::detach", "for bindings: what letting go of a terminal does there"),
    ("Progress::from_offsets", "of a decision without I/O, tested with it"),
    ("Progress::has_ended", "of a decision without I/O, tested with it"),
    ("Progress::info", "of a decision without I/O, tested with it"),
    ("Progress::next_event", "of a decision without I/O, tested with it"),
    ("Progress::offsets", "of a decision without I/O, tested with it"),
    ("Progress::push", "of a decision without I/O, tested with it"),
    ("Progress::reconnect", "of a decision without I/O, tested with it"),
    ("RetryPolicy::delay", "of a decision without I/O, tested with it"),
    ("Sandbox::prepare", "for bindings: what a run whose output is heard is made of there"),
    ("SandboxListing::next_page", "for bindings: what reading one by one is made of there"),
    ("SharedFeed::close", "for bindings: what many read from; tested with it, and as theirs"),
    ("SharedFeed::has_more", "for bindings: what many read from; tested with it, and as theirs"),
    ("SharedFeed::new", "for bindings: what many read from; tested with it, and as theirs"),
    ("SharedFeed::next", "for bindings: what many read from; tested with it, and as theirs"),
    ("SharedFeed::take", "for bindings: what many read from; tested with it, and as theirs"),
    ("SharedTunnel::close", "for bindings: a stream that many use; tested with it, and as theirs"),
    ("SharedTunnel::close_write", "for bindings: a stream that many use; tested with it, and as theirs"),
    ("SharedTunnel::has_more", "for bindings: a stream that many use; tested with it, and as theirs"),
    ("SharedTunnel::read", "for bindings: a stream that many use; tested with it, and as theirs"),
    ("SharedTunnel::take", "for bindings: a stream that many use; tested with it, and as theirs"),
    ("SharedTunnel::write", "for bindings: a stream that many use; tested with it, and as theirs"),
    ("SharedTunnel::write_all", "for bindings: a stream that many use; tested with it, and as theirs"),
    ("SwarmPlan::cancel", "for bindings' own swarms; a decision without I/O, tested with it"),
    ("SwarmPlan::failed", "for bindings' own swarms; a decision without I/O, tested with it"),
    ("SwarmPlan::new", "for bindings' own swarms; a decision without I/O, tested with it"),
    ("SwarmPlan::next", "for bindings' own swarms; a decision without I/O, tested with it"),
    ("SwarmPlan::progress", "for bindings' own swarms; a decision without I/O, tested with it"),
    ("SwarmPlan::ready", "for bindings' own swarms; a decision without I/O, tested with it"),
    ("SwarmPlan::report", "for bindings' own swarms; a decision without I/O, tested with it"),
    ("SwarmPlan::succeeded", "for bindings' own swarms; a decision without I/O, tested with it"),
    ("Tunnel::share", "for bindings: a stream that many use"),
    ("runtime::handle", "for bindings: the runtime that their calls run on"),
    ("runtime::run", "for bindings: what each of their calls is made of, and tested with it"),
    ("runtime::run_or_undo", "for bindings: what a call that makes something is made of, and tested with it"),
    ("runtime::settle", "for bindings: what they do at a program's end"),
];

pub fn surface() -> Outcome {
    let unread = |error: anyhow::Error| {
        Failure(serde_json::json!({"code": "executor", "message": format!("{error:#}")}))
    };
    let surface = Surface {
        calls: NAMES.iter().map(|&name| name.to_owned()).collect(),
        methods: methods(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../src")).map_err(unread)?,
        exempt: EXEMPT.iter().map(|&(method, reason)| (method.to_owned(), reason.to_owned())).collect(),
    };
    serde_json::to_value(surface).map_err(|error| unread(error.into()))
}

/// Public methods of the types that `lib.rs` names, and functions of its public modules.
fn methods(source: &Path) -> anyhow::Result<Vec<String>> {
    let root = syn::parse_file(&std::fs::read_to_string(source.join("lib.rs"))?)?;
    let (mut types, mut modules) = (BTreeSet::new(), BTreeSet::new());
    for item in root.items {
        match item {
            Item::Use(item) if is_public(&item.vis) => named(&item.tree, &mut types),
            Item::Mod(item) if is_public(&item.vis) => drop(modules.insert(item.ident.to_string())),
            _ => {}
        }
    }
    let mut methods = BTreeSet::new();
    for file in sources(source)? {
        let module = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for item in syn::parse_file(&std::fs::read_to_string(&file)?)?.items {
            match item {
                Item::Fn(item) if is_public(&item.vis) && modules.contains(&module) => {
                    methods.insert(format!("{module}::{}", item.sig.ident));
                }
                Item::Impl(item) if item.trait_.is_none() => {
                    let Type::Path(of) = *item.self_ty else { continue };
                    let Some(name) = of.path.segments.last().map(|part| part.ident.to_string()) else {
                        continue;
                    };
                    let public = item.items.into_iter().filter_map(|item| match item {
                        ImplItem::Fn(item) if is_public(&item.vis) => Some(item.sig.ident),
                        _ => None,
                    });
                    if types.contains(&name) {
                        methods.extend(public.map(|method| format!("{name}::{method}")));
                    }
                }
                _ => {}
            }
        }
    }
    Ok(methods.into_iter().collect())
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn named(tree: &UseTree, into: &mut BTreeSet<String>) {
    match tree {
        UseTree::Path(path) => named(&path.tree, into),
        UseTree::Group(group) => group.items.iter().for_each(|tree| named(tree, into)),
        UseTree::Name(name) => drop(into.insert(name.ident.to_string())),
        UseTree::Rename(name) => drop(into.insert(name.rename.to_string())),
        UseTree::Glob(_) => {}
    }
}

fn sources(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(sources(&path)?);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    use crate::call::via;

    #[test]
    fn what_a_call_claims_to_go_through_is_called_in_this_program() {
        let own = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin/conformance-rust")).unwrap();
        let text: String = own
            .iter()
            .filter(|file| !file.ends_with("call.rs") && !file.ends_with("surface.rs"))
            .map(|file| std::fs::read_to_string(file).unwrap())
            .collect();
        for method in NAMES.iter().flat_map(|name| via(name).unwrap()) {
            let (_, name) = method.split_once("::").unwrap();
            assert!(text.contains(&format!(".{name}(")) || text.contains(&format!("{method}(")), "{method}");
        }
    }

    #[test]
    fn the_source_is_read() {
        let surface = surface().unwrap_or_else(|failure| panic!("{}", failure.0));
        let methods = surface["methods"].as_array().cloned().unwrap_or_default();
        for method in ["Client::create", "Files::read", "Sandbox::fork", "Client::swarm", "runtime::settle"] {
            assert!(methods.contains(&Value::from(method)), "{method}");
        }
        assert!(!methods.iter().any(|method| method == "Http::call"), "it is not public");
    }
}
