"""Five agents review one project at once: setup is paid once, frozen with its memory, and forked for each agent.

A base machine installs the reviewer's tools with pip, where it reaches a package index: that of PIP_INDEX_URL, else the
server's, else PyPI. It may reach nothing else, and its forks nothing at all. Where it reaches none, the machine is of
the image 'code-review', which has the tools.

The base gets the project and starts the reviewer (code_review/reviewer.py), which imports its tools and waits. A
snapshot with its memory is taken, and five forks of it each review from one perspective, which an environment
variable names. Run one by one, all at once, and once more with the setup done in every agent, for comparison; these are
of the image, since five that install at once would be no fair comparison.

The lead's summary is made by rule; where OPENAI_API_KEY is set, by the model FORKYARD_LEAD_MODEL (default
gpt-4o-mini) behind OPENAI_BASE_URL.

Usage: python 02_swarm.py, with a server running (``make serve``) that has the images 'python' and 'code-review'.
An index at a private address needs a server that runs with ``--network-allow ADDRESS:PORT`` (``make demo`` does).
"""

import asyncio
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forkyard
from forkyard import AsyncSandbox, CheckpointType, CommandTimeout, ForkyardError, SwarmProgress, SwarmReport

HERE = Path(__file__).parent / "code_review"
PERSPECTIVES = ["security", "complexity", "docstrings", "tests", "structure"]
MACHINE = {"image": "code-review", "memory_mb": 384}
TOOLS = ["bandit==1.9.4", "radon==6.0.1"]

# In seconds. Under emulation pip takes the better part of a minute.
INDEX_ANSWERS_WITHIN, PIP_ENDS_WITHIN = 10, 180

# The index that pip asks.
INDEX = 'printf "%s" "${PIP_INDEX_URL:-https://pypi.org/simple}"'

# Speaks to the reviewer that waits in the machine.
ASK = 'until [ -p ask ]; do sleep 0.1; done; printf "%s" "$PERSPECTIVE" >ask; cat answer'

Review = dict[str, Any]
started = time.perf_counter()


def say(text: str) -> None:
    """Prints what happens, and when."""
    print(f"{time.perf_counter() - started:6.2f} s  {text}", flush=True)


async def ask(sandbox: AsyncSandbox, perspective: str) -> Review:
    """Has the reviewer in a machine look at the project; answers what it says in its one line of JSON."""
    result = await sandbox.run("sh", ["-c", ASK], env={"PERSPECTIVE": perspective}, timeout=120, check=True)
    review: Review = json.loads(result.stdout)
    return review


def way_to(index: str) -> list[str]:
    """The rules for what a machine has to reach in order to install from a package index, and for nothing else."""
    url = urllib.parse.urlsplit(index)
    if url.scheme not in ("http", "https") or not url.hostname:
        # Not which: it may hold a password.
        raise ValueError("PIP_INDEX_URL names no package index, such as https://pypi.org/simple")
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    rules = [f"{host}:{url.port or (443 if url.scheme == 'https' else 80)}"]
    # PyPI keeps the files elsewhere.
    return [*rules, "files.pythonhosted.org:443"] if host == "pypi.org" else rules


async def install(sandbox: AsyncSandbox) -> str | None:
    """Installs the reviewer's tools in a machine that reaches the index meanwhile; answers why it has not, if so."""
    index = (await sandbox.run("sh", ["-c", INDEX], check=True)).stdout
    try:
        await sandbox.update_network(allow_out=way_to(index))
        page = f"{index.rstrip('/')}/bandit/"
        options = ["--silent", "--show-error", "--fail", "--location", "--output", "/dev/null"]
        found = await sandbox.run("curl", [*options, "--max-time", str(INDEX_ANSWERS_WITHIN), page])
        if found.exit_code:
            return found.stderr.strip()
        options = ["--no-cache-dir", "--no-compile", "--progress-bar", "off", "--quiet"]
        installed = await sandbox.run("pip", ["install", *options, *TOOLS], timeout=PIP_ENDS_WITHIN)
        return installed.stderr.strip() if installed.exit_code else None
    except ValueError as error:
        return str(error)
    except CommandTimeout:
        return f"pip did not end within {PIP_ENDS_WITHIN} seconds"
    finally:
        await sandbox.update_network()


async def make_base() -> AsyncSandbox:
    """A machine that has the reviewer's tools, and no network."""
    own = os.environ.get("PIP_INDEX_URL")
    base = await AsyncSandbox.create("python", memory_mb=384, env={"PIP_INDEX_URL": own} if own else {})
    try:
        failure = await install(base)
    except BaseException:
        await base.terminate()
        raise
    if failure is None:
        say("its tools were installed inside it, with pip")
        return base
    await base.terminate()
    say(f"pip cannot install inside it ({failure}): the image 'code-review' has the tools")
    return await AsyncSandbox.create(**MACHINE)


async def set_up(sandbox: AsyncSandbox) -> Review:
    """Brings the project and the reviewer into a machine, and proves that the reviewer has its tools."""
    for path in [HERE / "reviewer.py", *sorted(HERE.glob("project/**/*.py"))]:
        await sandbox.write_file(f"/workspace/{path.relative_to(HERE)}", path.read_bytes())
    await sandbox.start("python", ["reviewer.py"])
    return await ask(sandbox, "tools")


async def set_up_and_ask(sandbox: AsyncSandbox, perspective: str) -> Review:
    """What each agent has to do without a snapshot."""
    await set_up(sandbox)
    return await ask(sandbox, perspective)


def progress_shown() -> Callable[[SwarmProgress], None]:
    """Says so whenever another agent is done."""
    said = 0

    def show(progress: SwarmProgress) -> None:
        nonlocal said
        done = progress.succeeded + progress.failed
        if done > said:
            said = done
            say(f"  {done} of {progress.total} agents are done")

    return show


def show_reviews(report: SwarmReport[Review]) -> None:
    """Each perspective's score, and its worst findings."""
    print()
    for task, perspective in zip(report.tasks, PERSPECTIVES, strict=True):
        if task.result is None:
            print(f"  {perspective:<12} failed: {task.error}")
            continue
        findings = task.result["findings"]
        print(f"  {perspective:<12} {task.result['score']:4.1f} of 10, {len(findings)} findings")
        for finding in findings[:3]:
            print(f"{'':<16}{finding['file']}:{finding['line']}  {finding['message'][:80]}")


def show_times(rows: list[tuple[str, int, SwarmReport[Review]]]) -> None:
    """What each way took; the first, which runs the agents one by one, is what the others are compared with."""
    alone = rows[0][2].wall
    print(f"\n  {'on ' + str(os.cpu_count()) + ' processors':<34} {'wall':>9}  {'speed-up':>8}  {'efficiency':>10}")
    for name, concurrency, report in rows:
        speedup = alone / report.wall
        print(f"  {name:<34} {report.wall:7.2f} s  {speedup:8.2f}  {speedup / concurrency:10.0%}")
    print(f"\n  setup in every agent takes {rows[2][2].wall / rows[1][2].wall:.1f} times as long as forks")


def lead_by_rule(reviews: list[Review]) -> str:
    """What the lead concludes without a model."""
    mean = sum(review["score"] for review in reviews) / len(reviews)
    worst = min(reviews, key=lambda review: review["score"])
    first = max((finding for review in reviews for finding in review["findings"]), key=lambda it: it["cost"])
    verdict = "ready to merge" if mean >= 8 else "not ready to merge"
    return (
        f"{mean:.1f} of 10 over {len(reviews)} perspectives: {verdict}. Weakest is {worst['perspective']} "
        f"({worst['score']}). Begin with {first['file']}:{first['line']}: {first['message']}"
    )


def lead_by_model(reviews: list[Review], key: str) -> str:
    """What a language model concludes."""
    url = os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1").rstrip("/") + "/chat/completions"
    question = f"You lead a code review. In three sentences: is it ready, and what comes first?\n{json.dumps(reviews)}"
    body = {
        "model": os.environ.get("FORKYARD_LEAD_MODEL", "gpt-4o-mini"),
        "messages": [{"role": "user", "content": question}],
    }
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310 - the caller's own address
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
        answer: str = json.load(response)["choices"][0]["message"]["content"]
    return answer.strip()


async def summarise(reviews: list[Review]) -> str:
    """The lead's summary: a model's where there is one, else, or where it fails, by rule."""
    key = os.environ.get("OPENAI_API_KEY")
    if not key:
        return f"by rule: {lead_by_rule(reviews)}"
    try:
        return f"by model: {await asyncio.to_thread(lead_by_model, reviews, key)}"
    except (urllib.error.URLError, KeyError, ValueError, TimeoutError) as error:
        return f"by rule, since the model did not answer ({error}): {lead_by_rule(reviews)}"


async def main() -> None:
    """The base, the three ways to run the agents, and what they cost."""
    say("the base: a machine with the project and a reviewer that has its tools loaded")
    async with await make_base() as base:
        setup_began = time.perf_counter()
        tools = await set_up(base)
        setup = time.perf_counter() - setup_began
        say("it has " + ", ".join(f"{name} {version}" for name, version in tools.items()) + f" ({setup:.1f} s)")
        snapshot = await base.checkpoint(CheckpointType.MEMORY, name="code-review-base")
    size, pause = snapshot.size >> 20, snapshot.pause
    say(f"frozen as {snapshot.snapshot_id}: {size} MiB on disk; it stood still for {pause:.3f} s")
    try:
        say("five forks, one by one")
        one_by_one = await forkyard.swarm(
            ask, PERSPECTIVES, snapshot_id=snapshot.snapshot_id, concurrency=1, on_progress=progress_shown()
        )
        say("five forks, all at once")
        at_once = await forkyard.swarm(
            ask, PERSPECTIVES, snapshot_id=snapshot.snapshot_id, concurrency=5, on_progress=progress_shown()
        )
    finally:
        await AsyncSandbox.delete_snapshot(snapshot.snapshot_id)
    say("for comparison, five machines that each do the setup")
    with_setup = await forkyard.swarm(
        set_up_and_ask, PERSPECTIVES, **MACHINE, concurrency=5, on_progress=progress_shown()
    )

    show_reviews(at_once)
    show_times(
        [
            ("forks, one by one", 1, one_by_one),
            ("forks, all at once", 5, at_once),
            ("setup in every agent, all at once", 5, with_setup),
        ]
    )
    print(f"\n  the lead, {await summarise(at_once.results)}")
    if any(report.failed for report in (one_by_one, at_once, with_setup)):
        raise SystemExit("not all agents succeeded")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except ForkyardError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error
