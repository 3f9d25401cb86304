//! Runs all cases in one language.

mod case;
mod local;
mod step;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use forkyard::{Client, CreateKey, CreateSandbox, Sandbox};
use forkyard_protocol::{ProjectId, Scope};
use futures_util::StreamExt as _;
use serde_json::{Map, Value, json};

use crate::case::{Case, Machine};
use crate::coverage::{self, Went};
use crate::executor::Executor;
use crate::wire::Surface;
use crate::world::World;

/// Cases under way at once.
const AT_ONCE: usize = 8;

/// How long what cancelled calls left may take to be gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a call that only prepares a case is made.
const PREPARATIONS: usize = 5;

/// How a language did.
pub struct Report {
    /// What it has.
    pub surface: Surface,
    /// Why cases failed, each with its topic and name; and what the language lacks.
    pub failures: Vec<String>,
    /// Cases that passed.
    pub passed: usize,
    /// Cases that passed, by the call that they make.
    pub shown: BTreeMap<String, usize>,
    /// The native methods by call, the telling one first.
    pub native: BTreeMap<String, String>,
    /// How long it took.
    pub took: Duration,
}

/// A language while its cases run.
pub(crate) struct Language<'a> {
    world: &'a World,
    admin: Client,
    executor: &'a Executor,
    /// Its place among the languages: what it makes on the server is named after it.
    number: usize,
    surface: Surface,
    api_key: String,
    client: Client,
    handle: Value,
    shared: Option<Sandbox>,
}

/// Native methods that a call went through, in the order in which the language told them.
pub(crate) type Via = Vec<(String, Vec<String>)>;

/// Runs the cases. `whole` says whether they are all there are: what is in no case is looked for then.
pub async fn language(
    world: &World,
    number: usize,
    command: &[String],
    cases: &[Case],
    whole: bool,
) -> anyhow::Result<Report> {
    let began = Instant::now();
    let executor = Executor::start(command)?;
    let mut language = Language::new(world, number, &executor).await?;
    if cases.iter().any(|case| case.machine == Machine::Shared) {
        language.shared = Some(language.client.create(small()).await?);
    }
    let mut mixed: Vec<_> = cases.iter().enumerate().collect();
    // Otherwise all that use the shared machine come at once, and wait for its one processor.
    mixed.sort_by_key(|(index, case)| (index % AT_ONCE, case.machine == Machine::Shared, *index));
    let outcomes: Vec<_> = futures_util::stream::iter(mixed)
        .map(|(index, case)| {
            let language = &language;
            async move { (case, language.run(index, case).await) }
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    let mut report = Report {
        surface: language.surface.clone(),
        failures: Vec::new(),
        passed: 0,
        shown: BTreeMap::new(),
        native: BTreeMap::new(),
        took: Duration::ZERO,
    };
    let mut went = Went::new();
    for (case, outcome) in outcomes {
        match outcome {
            Ok(via) => report.add(case, via, &mut went),
            Err(reason) => report.failures.push(format!("{}: {}: {reason:#}", case.topic, case.name)),
        }
    }
    report.failures.sort();
    if let Err(left) = language.nothing_is_left().await {
        report.failures.push(format!("{left:#}"));
    }
    drop(language);
    if let Err(error) = executor.stop().await {
        report.failures.push(format!("{error:#}"));
    }
    // A case that failed has shown nothing of what it goes through.
    if whole && report.failures.is_empty() {
        let named: BTreeSet<String> =
            cases.iter().flat_map(|case| case.steps.iter().map(|step| step.call.clone())).collect();
        report.failures = coverage::gaps(&report.surface, &named, &went);
    }
    report.took = began.elapsed();
    Ok(report)
}

impl Report {
    fn add(&mut self, case: &Case, via: Via, went: &mut Went) {
        self.passed += 1;
        for (call, methods) in via {
            if let Some(first) = methods.first() {
                self.native.entry(call.clone()).or_insert_with(|| first.clone());
            }
            went.entry(call).or_default().extend(methods);
        }
        let calls: BTreeSet<&str> = case.steps.iter().map(|step| step.call.as_str()).collect();
        for call in calls {
            *self.shown.entry(call.to_owned()).or_default() += 1;
        }
    }
}

impl<'a> Language<'a> {
    async fn new(world: &'a World, number: usize, executor: &'a Executor) -> anyhow::Result<Self> {
        let surface = executor.surface().await?;
        let admin = world.client(&world.first_key()?)?;
        let api_key = make_key(&admin, &format!("{number}"), Scope::Admin, 64, 100_000).await?;
        let client = world.client(&api_key)?;
        let url = format!("http://{}", world.address());
        let handle = open(executor, &url, &api_key, None).await?;
        Ok(Self { world, admin, executor, number, surface, api_key, client, handle, shared: None })
    }

    /// Ends the shared machine; no other is alive then, whatever was cancelled.
    async fn nothing_is_left(&self) -> anyhow::Result<()> {
        if let Some(shared) = &self.shared {
            shared.terminate().await?;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let alive: Vec<_> =
                self.client.list().await?.into_iter().filter(|machine| machine.status.is_alive()).collect();
            if alive.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "machines are left: {alive:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// A key of a project of its own.
async fn make_key(
    admin: &Client,
    project: &str,
    scope: Scope,
    max_sandboxes: u32,
    requests_per_second: u32,
) -> anyhow::Result<String> {
    let request = CreateKey {
        project: Some(ProjectId::parse(&format!("prj_conformance{project}"))?),
        scope,
        description: "conformance".to_owned(),
        max_sandboxes,
        requests_per_second,
    };
    Ok(admin.create_key(&request).await?.api_key)
}

/// Has an executor make a client.
async fn open(
    executor: &Executor,
    url: &str,
    api_key: &str,
    timeout_ms: Option<u64>,
) -> anyhow::Result<Value> {
    let mut args = Map::from_iter([("url".to_owned(), json!(url)), ("api_key".to_owned(), json!(api_key))]);
    if let Some(timeout_ms) = timeout_ms {
        args.insert("timeout_ms".to_owned(), json!(timeout_ms));
    }
    given(executor, "client.open", None, args).await
}

/// A call that only prepares a case: it has to succeed, if not at once where the case's client has little time.
async fn given(
    executor: &Executor,
    call: &str,
    on: Option<String>,
    args: Map<String, Value>,
) -> anyhow::Result<Value> {
    let mut failed = Value::Null;
    for _ in 0..PREPARATIONS {
        let begun = executor.begin(call, on.clone(), args.clone(), false).await?;
        let answer = tokio::time::timeout(Duration::from_mins(1), begun.answer)
            .await
            .with_context(|| format!("{call} does not answer"))??;
        if let Some(returned) = answer.returns {
            return Ok(returned);
        }
        failed = answer.error.unwrap_or_default();
    }
    anyhow::bail!("{call} failed: {failed}")
}

/// The smallest machine of the smallest image that is still quick.
fn small() -> CreateSandbox {
    CreateSandbox { image: Some("base".to_owned()), memory_mb: Some(256), ..CreateSandbox::default() }
}
