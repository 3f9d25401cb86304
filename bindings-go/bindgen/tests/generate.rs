//! What is written for a small interface, and what is refused.

use std::fs;
use std::path::Path;

use camino::Utf8Path;

const CONFIG: &str = "[bindings.go]\nunexported = [\"Helper\", \"Tool.raw_state\"]\n";

/// Generates for an interface description, as if it were a crate's.
fn generate(udl: &str) -> anyhow::Result<Vec<(String, String)>> {
    let folder = tempfile::tempdir()?;
    let root = Utf8Path::from_path(folder.path()).expect("a temporary folder's name is text");
    fs::create_dir(root.join("src"))?;
    fs::write(root.join("Cargo.toml"), "[package]\nname = \"yard\"\n")?;
    let source = root.join("src/yard.udl");
    fs::write(&source, udl)?;
    forkyard_bindgen_go::generate(&source, CONFIG)
}

/// `FORKYARD_UPDATE_GOLDEN=1 cargo test` writes the files anew.
#[test]
fn the_files_are_as_they_were_reviewed() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let files = generate(include_str!("yard.udl")).unwrap();
    assert_eq!(files.len(), 4);
    for (name, text) in files {
        let path = golden.join(format!("{name}.golden"));
        if std::env::var_os("FORKYARD_UPDATE_GOLDEN").is_some() {
            fs::write(&path, &text).unwrap();
        }
        assert_eq!(text, fs::read_to_string(&path).unwrap(), "{name}");
    }
}

#[track_caller]
fn refused(udl: &str, why: &str) {
    let failure = generate(udl).expect_err(why).to_string();
    assert_eq!(failure, why);
}

#[test]
fn what_is_not_covered_is_refused_by_name() {
    let simple = |ty: &str| format!("namespace yard {{}}; dictionary Wish {{ {ty} it; }};");
    refused(&simple("u8"), "Wish.it: numbers of fewer than 32 bits, and f32, are not covered");
    refused(&simple("f32"), "Wish.it: numbers of fewer than 32 bits, and f32, are not covered");
    refused(&simple("record<i32, string>"), "Wish.it: maps are covered with keys of text only");
    refused(
        &simple("sequence<string>?"),
        "Wish.it: optional options and lists are not covered: nil would be two things",
    );
    refused(
        "namespace yard {}; dictionary Wish { i32 it = 3; };",
        "Wish.it: defaults are not covered: Go's zero values are",
    );
    refused(
        "namespace yard {}; callback interface Listener { void tell(); };",
        "Listener: callback interfaces are not covered",
    );
    refused(
        "namespace yard {}; [Trait] interface Listener { void tell(); };",
        "Listener: traits are not covered, only objects",
    );
    refused(
        "namespace yard {}; [Enum] interface Shape { Circle(f64 radius); };",
        "Shape: enums that hold data are not covered",
    );
    refused(
        "namespace yard { [Throws=Failure] void go(); }; [Error] enum Failure { \"One\", \"Two\" };",
        "Failure: errors of other than one variant are not covered: give the variant a code",
    );
    refused(
        "namespace yard {}; interface Tool { void close(); };",
        "Tool.close: Go's own Close has this name",
    );
    refused(
        "namespace yard {}; interface Tool { [Name=of_wood] constructor(); };",
        "Tool.of_wood: constructors not called new are not covered",
    );
}

#[test]
fn a_call_that_cannot_say_what_is_wrong_is_refused() {
    refused(
        "namespace yard { void rename(string name); };",
        "rename(name): may be given what cannot cross, so the call must throw",
    );
    refused(
        "namespace yard { void store(Tool? tool); }; interface Tool {};",
        "store(tool): objects inside other arguments are not covered",
    );
    refused(
        "namespace yard { void wait(optional u32 count = 3); };",
        "wait(count): defaults are not covered: Go has none",
    );
}
