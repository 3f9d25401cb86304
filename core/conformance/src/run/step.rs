//! One step: a call, as often as it is asked for, and whether it went as it was to.

use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use futures_util::future::try_join_all;
use serde_json::{Map, Value};
use tokio::time::{sleep, timeout};

use super::case::World;
use super::local::local;
use crate::case::Step;
use crate::executor::Begun;
use crate::value::{brief, lookup, matches, resolve};
use crate::wire::Answer;

/// How long after a step's own time its call may still answer, so that it says why.
const GRACE: Duration = Duration::from_secs(5);

/// How long it takes until a step that is made again is made again: what it waits for tells nobody.
const AGAIN: Duration = Duration::from_millis(50);

impl World<'_> {
    pub(super) async fn step(&mut self, step: &Step) -> anyhow::Result<()> {
        if let Some(proxy) = &self.proxy {
            proxy.arm(step.faults.clone());
        }
        let args = match resolve(&Value::Object(step.args.clone()), &self.names)? {
            Value::Object(args) => args,
            other => bail!("{} are no arguments", brief(&other)),
        };
        let began = Instant::now();
        let limit = Duration::from_millis(step.within_ms);
        loop {
            let outcome = self.attempt(step, &args, limit).await;
            let is_over = began.elapsed() + AGAIN >= limit;
            match outcome {
                Ok(()) => break,
                Err(error) if !step.eventually || is_over => return Err(error),
                Err(_) => sleep(AGAIN).await,
            }
        }
        let took = began.elapsed();
        ensure!(took <= limit, "it took {took:.2?}, which is more than {limit:?}");
        ensure!(
            took >= Duration::from_millis(step.at_least_ms),
            "it took {took:.2?}, less than {} ms",
            step.at_least_ms
        );
        self.check_faults(step)
    }

    fn check_faults(&self, step: &Step) -> anyhow::Result<()> {
        let Some(proxy) = &self.proxy else { return Ok(()) };
        let plan = proxy.plan();
        if let Some(unspent) = plan.unspent() {
            bail!("{unspent}");
        }
        for (pattern, wanted) in &step.requests {
            matches(wanted, &plan.count(pattern).into())
                .map_err(|why| anyhow!("requests '{pattern}': {why}"))?;
        }
        Ok(())
    }

    async fn attempt(
        &mut self,
        step: &Step,
        args: &Map<String, Value>,
        limit: Duration,
    ) -> anyhow::Result<()> {
        if step.call.starts_with("local.") {
            let returned = local(&step.call, args).await?;
            return self.judge(step, returned.0, returned.1);
        }
        let on = self.target(step)?;
        let calls = (0..step.together).map(|_| self.call(step, on.clone(), args.clone(), limit));
        let answers = try_join_all(calls).await?;
        for answer in answers {
            // Also of one that is not as it was to be: what it made is to be ended.
            self.made.note(&step.call, answer.returns.as_ref().unwrap_or(&Value::Null));
            self.judge(step, answer.returns, answer.error)?;
            self.via.push((step.call.clone(), answer.via));
        }
        Ok(())
    }

    /// The handle of what it is called on.
    fn target(&self, step: &Step) -> anyhow::Result<Option<String>> {
        let noun = step.call.split('.').next().unwrap_or_default();
        let path = match (&step.on, noun) {
            (Some(path), _) => path.as_str(),
            (None, "client") => "client",
            (None, "sandbox" | "files" | "ports") => "machine",
            (None, _) => bail!("say what it is called on"),
        };
        let object = lookup(path, &self.names)?;
        let handle = object["$handle"].as_str().with_context(|| format!("'{path}' cannot be called on"))?;
        Ok(Some(handle.to_owned()))
    }

    async fn call(
        &self,
        step: &Step,
        on: Option<String>,
        args: Map<String, Value>,
        limit: Duration,
    ) -> anyhow::Result<Answer> {
        let executor = self.language.executor;
        let Begun { id, mut answer } =
            executor.begin(&step.call, on, args, step.cancel_after.is_some()).await?;
        let answering = async {
            if let (Some(pattern), Some(proxy)) = (&step.cancel_after, &self.proxy) {
                tokio::select! {
                    early = &mut answer => return Ok(early?),
                    () = proxy.answered(pattern) => executor.cancel(id).await?,
                }
            }
            anyhow::Ok(answer.await?)
        };
        if let Ok(answer) = timeout(limit + GRACE, answering).await {
            return answer.context("the executor ended");
        }
        executor.cancel(id).await?;
        bail!("no answer within {:?}", limit + GRACE)
    }

    /// Whether an outcome is the expected one.
    fn judge(&mut self, step: &Step, returned: Option<Value>, failed: Option<Value>) -> anyhow::Result<()> {
        if let Some(expected) = &step.error {
            let expected = resolve(expected, &self.names)?;
            let Some(failed) = failed else {
                bail!("it returned {} instead of failing", brief(&returned.unwrap_or_default()));
            };
            return matches(&expected, &failed).map_err(|why| anyhow!("error.{why} in {}", brief(&failed)));
        }
        if let Some(failed) = failed {
            bail!("it failed: {}", brief(&failed));
        }
        let returned = returned.unwrap_or_default();
        if let Some(expected) = &step.returns {
            let expected = resolve(expected, &self.names)?;
            matches(&expected, &returned).map_err(|why| anyhow!("{why}"))?;
        }
        if let Some(name) = &step.save {
            self.names.insert(name.clone(), returned);
        }
        Ok(())
    }
}
