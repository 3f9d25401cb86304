//! Runs the conformance suite: `cargo test -p forkyard-conformance`, with the words that topics or names of cases are to hold.
//!
//! With `--surfaces` none runs: what can be told without machines is looked at, that is whether each language has all calls that
//! its cases make, and whether the table fits the cases.
//!
//! `FORKYARD_BIN` and `FORKYARD_TEST_IMAGES` name the server and the images; `FORKYARD_CONFORMANCE` the executors of other
//! languages than Rust: `{"python-sync": ["python", "executor.py"], …}`; `FORKYARD_CONFORMANCE_ONLY` those to run, by comma.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use forkyard_conformance::case::{self, Case};
use forkyard_conformance::executor::Executor;
use forkyard_conformance::parity::{self, Table};
use forkyard_conformance::run::{self, Report};
use forkyard_conformance::world::World;
use tokio::signal::unix::{SignalKind, signal};

/// The languages and their headings, in the order of the table.
const LANGUAGES: [(&str, &str); 5] = [
    ("rust", "Rust"),
    ("python-sync", "Python, blocking"),
    ("python-async", "Python, asyncio"),
    ("node", "TypeScript"),
    ("go", "Go"),
];

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    match runtime.block_on(unless_ended()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("the conformance suite cannot run: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The suite, unless somebody ends this process: the server and its machines must not outlive it.
async fn unless_ended() -> anyhow::Result<bool> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        outcome = suite() => outcome,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}

async fn suite() -> anyhow::Result<bool> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let filters: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let all = case::load(&root.join("cases"))?;
    let page = root.join("../../docs/reference/parity.md");
    let is_wanted = |case: &Case| {
        let title = format!("{}: {}", case.topic, case.name);
        filters.is_empty() || filters.iter().any(|filter| title.contains(filter.as_str()))
    };
    let cases: Vec<Case> = all.iter().filter(|case| is_wanted(case)).cloned().collect();
    let whole = cases.len() == all.len();
    let executors = executors()?;
    let unknown = all
        .iter()
        .flat_map(|case| case.except.keys())
        .find(|name| LANGUAGES.iter().all(|(known, _)| known != name));
    ensure!(unknown.is_none(), "a case excepts {unknown:?}, which is no language");
    if std::env::args().any(|argument| argument == "--surfaces") {
        return surfaces(&executors, &all, &page).await;
    }
    let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance-server.log");
    let world =
        World::start(&folder("FORKYARD_BIN")?, &folder("FORKYARD_TEST_IMAGES")?, File::create(&log)?).await?;
    let (mut passed, mut failed) = (0, 0);
    let mut reports = Vec::new();
    for (number, (name, _)) in LANGUAGES.into_iter().enumerate() {
        let Some(command) = executors.get(name) else { continue };
        let sayable: Vec<Case> =
            cases.iter().filter(|case| !case.except.contains_key(name)).cloned().collect();
        let report =
            run::language(&world, number, command, &sayable, whole).await.with_context(|| name.to_owned())?;
        for failure in &report.failures {
            println!("{name}: {failure}");
        }
        println!(
            "{name}: {} passed, {} failed in {:.1} s",
            report.passed,
            report.failures.len(),
            report.took.as_secs_f64()
        );
        passed += report.passed;
        failed += report.failures.len();
        reports.push((name, report));
    }
    world.stop().await?;
    if whole && failed == 0 && !is_table_fresh(&page, &reports, &all)? {
        println!("docs/reference/parity.md is stale: run again with FORKYARD_WRITE_PARITY=1");
        failed += 1;
    }
    if failed > 0 {
        println!("what the server said is in {}", log.display());
    }
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}

/// Whether each language has all calls that its cases make, and the table says what cases and languages do.
async fn surfaces(
    executors: &BTreeMap<String, Vec<String>>,
    cases: &[Case],
    page: &Path,
) -> anyhow::Result<bool> {
    let said = std::fs::read_to_string(page)?;
    let mut faults = parity::stale(&said, &LANGUAGES, cases);
    let (_, exempt) = parity::parse(&said, &LANGUAGES);
    for (name, command) in executors {
        let executor = Executor::start(command)?;
        let surface = executor.surface().await.with_context(|| name.clone())?;
        executor.stop().await?;
        let calls = cases
            .iter()
            .filter(|case| !case.except.contains_key(name))
            .flat_map(|case| case.steps.iter().map(|step| step.call.as_str()));
        let missing: BTreeSet<&str> = calls
            .filter(|call| !call.starts_with("local.") && !surface.calls.iter().any(|known| known == call))
            .collect();
        faults.extend(missing.into_iter().map(|call| format!("{name}: no binding for {call}")));
        if exempt.get(name) != Some(&surface.exempt) {
            faults.push(format!("{name}: the public methods in no case are others"));
        }
    }
    for fault in &faults {
        println!("docs/reference/parity.md, or what it is written from: {fault}");
    }
    Ok(faults.is_empty())
}

/// The commands of the languages that are to run.
fn executors() -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let mut executors: BTreeMap<String, Vec<String>> = match std::env::var("FORKYARD_CONFORMANCE") {
        Ok(text) => serde_json::from_str(&text).context("FORKYARD_CONFORMANCE")?,
        Err(_) => BTreeMap::new(),
    };
    executors.insert("rust".to_owned(), vec![env!("CARGO_BIN_EXE_conformance-rust").to_owned()]);
    if let Ok(only) = std::env::var("FORKYARD_CONFORMANCE_ONLY") {
        executors.retain(|name, _| only.split(',').any(|it| it == name));
    }
    let unknown = executors.keys().find(|name| LANGUAGES.iter().all(|(known, _)| known != name));
    ensure!(unknown.is_none(), "there is no language {unknown:?}");
    ensure!(!executors.is_empty(), "no language is to run");
    Ok(executors)
}

fn folder(variable: &str) -> anyhow::Result<PathBuf> {
    let value =
        std::env::var_os(variable).with_context(|| format!("{variable} is not set: 'make test' sets it"))?;
    Ok(PathBuf::from(value))
}

/// Writes the table, or says whether the one that is there is what was found. Languages that did not run keep what they had.
fn is_table_fresh(file: &Path, reports: &[(&str, Report)], cases: &[Case]) -> anyhow::Result<bool> {
    let before = std::fs::read_to_string(file).unwrap_or_default();
    let (mut table, mut exempt) = parity::parse(&before, &LANGUAGES);
    for cells in table.values_mut() {
        cells.retain(|language, _| reports.iter().all(|(ran, _)| ran != language));
    }
    for (language, report) in reports {
        exempt.insert((*language).to_owned(), report.surface.exempt.clone());
        add(&mut table, language, report);
    }
    table.retain(|_, cells| !cells.is_empty());
    let page = parity::render(&table, &LANGUAGES, &exempt, cases);
    if std::env::var_os("FORKYARD_WRITE_PARITY").is_some() {
        std::fs::write(file, &page)?;
        return Ok(true);
    }
    Ok(page == before)
}

fn add(table: &mut Table, language: &str, report: &Report) {
    for (call, native) in &report.native {
        let cases = report.shown.get(call).copied().unwrap_or_default();
        table.entry(call.clone()).or_default().insert(language.to_owned(), parity::cell(native, cases));
    }
}
