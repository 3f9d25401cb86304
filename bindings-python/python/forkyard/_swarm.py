"""One job on many machines: an asyncio driver and a blocking one of the plan that the native half makes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from . import _native
from ._async_client import AsyncSandboxClient
from ._async_sandbox import AsyncSandbox
from ._errors import ForkyardError
from ._records import load
from ._sync_client import SandboxClient
from ._sync_sandbox import Sandbox

T = TypeVar("T")
R = TypeVar("R")


class TaskStatus(str, Enum):
    """Where a swarm's task stands."""

    WAITING = "waiting"
    """It waits for its turn, the first or another."""
    STARTING = "starting"
    """Its machine was asked for."""
    RUNNING = "running"
    """Its machine runs, and its job with it."""
    SUCCEEDED = "succeeded"
    """It is done."""
    FAILED = "failed"
    """It failed, and is not tried again."""
    CANCELLED = "cancelled"
    """The swarm was cancelled before it came to its end."""


@dataclass(frozen=True)
class SwarmAttempt:
    """One attempt at a task. Times are seconds since the swarm began.

    Attributes:
        started: When its machine was asked for.
        ready: When its machine ran; None where it never did.
        ended: When it ended; None while it is under way.
        sandbox_id: The machine.
        error: Why it failed, for people.
    """

    started: float
    ready: float | None
    ended: float | None
    sandbox_id: str | None
    error: str | None


@dataclass(frozen=True)
class SwarmTask(Generic[R]):
    """What became of a task.

    Attributes:
        index: Its place among the tasks, from 0.
        status: Where it stands.
        result: What the job returned for it; None unless it succeeded.
        error: What its last attempt raised; None if it succeeded.
        attempts: Its attempts, in their order.
    """

    index: int
    status: TaskStatus
    result: R | None
    error: BaseException | None
    attempts: list[SwarmAttempt]

    @property
    def ok(self) -> bool:
        """Whether it is done."""
        return self.status is TaskStatus.SUCCEEDED


@dataclass(frozen=True)
class SwarmProgress:
    """How far a swarm has come: how many of its tasks stand where.

    Attributes:
        wall: Seconds since its begin.
        total: Tasks in all.
        waiting: Tasks that wait for their turn, the first or another.
        starting: Tasks whose machine was asked for.
        running: Tasks whose machine runs.
        succeeded: Tasks that are done.
        failed: Tasks that failed.
        cancelled: Tasks that were cancelled.
    """

    wall: float
    total: int
    waiting: int
    starting: int
    running: int
    succeeded: int
    failed: int
    cancelled: int


@dataclass(frozen=True)
class SwarmReport(Generic[R]):
    """What a swarm did.

    Attributes:
        wall: Seconds from its begin to its end.
        sequential: Seconds that its attempts took in all: what they would have taken one after another, had each been
            as fast alone. Attempts that share processors are slower than alone.
        speedup: How many times faster it was than that.
        efficiency: The speed-up for each task that could be under way at once.
        succeeded: Tasks that are done.
        failed: Tasks that failed.
        cancelled: Tasks that were cancelled.
        tasks: Each task, in the order in which they were given.
    """

    wall: float
    sequential: float
    speedup: float
    efficiency: float
    succeeded: int
    failed: int
    cancelled: int
    tasks: list[SwarmTask[R]]

    @property
    def results(self) -> list[R]:
        """The results of the tasks that are done, in the order in which the tasks were given."""
        return [task.result for task in self.tasks if task.ok]  # type: ignore[misc]


OnProgress = Callable[[SwarmProgress], object]


@dataclass
class _Swarm(Generic[R]):
    """What both drivers keep: the plan, the clock, and what Python alone can hold."""

    count: int
    concurrency: int
    retries: int
    on_progress: OnProgress | None
    results: dict[int, R] = field(default_factory=dict)
    errors: dict[int, BaseException] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.retries < 0:
            raise ValueError("concurrency must be at least 1, and retries at least 0")
        self.plan = _native.SwarmPlan(self.count, self.concurrency, self.retries)
        self.began = time.monotonic()
        # Jobs that block have threads of their own.
        self.telling = threading.Lock()

    def now(self) -> float:
        return time.monotonic() - self.began

    def tell(self) -> None:
        if self.on_progress is not None:
            with self.telling:
                value = load(self.plan.progress(self.now()))
                self.on_progress(SwarmProgress(wall=value.pop("wall_secs"), **value))

    def next(self) -> int | None:
        index: int | None = self.plan.next(self.now())
        if index is not None:
            self.tell()
        return index

    def ready(self, index: int, sandbox_id: str) -> None:
        self.plan.ready(index, sandbox_id, self.now())
        self.tell()

    def succeeded(self, index: int, result: R) -> None:
        self.errors.pop(index, None)
        self.results[index] = result
        self.plan.succeeded(index, self.now())
        self.tell()

    def failed(self, index: int, error: BaseException, had_machine: bool) -> None:
        self.errors[index] = error
        # What was refused is refused again; what went wrong in a machine may go well in another.
        refused = error.code if isinstance(error, ForkyardError) and not had_machine else None
        self.plan.failed(index, str(error) or type(error).__name__, refused, self.now())
        self.tell()

    def report(self) -> SwarmReport[R]:
        value = load(self.plan.report(self.now()))
        tasks = [
            SwarmTask(
                index=task["index"],
                status=TaskStatus(task["status"]),
                result=self.results.get(task["index"]),
                error=self.errors.get(task["index"]),
                attempts=[SwarmAttempt(**attempt) for attempt in task["attempts"]],
            )
            for task in value["tasks"]
        ]
        return SwarmReport(
            wall=value["wall_secs"],
            sequential=value["sequential_secs"],
            speedup=value["speedup"],
            efficiency=value["efficiency"],
            succeeded=value["succeeded"],
            failed=value["failed"],
            cancelled=value["cancelled"],
            tasks=tasks,
        )


async def swarm(
    job: Callable[[AsyncSandbox, T], Awaitable[R]],
    tasks: Iterable[T],
    *,
    image: str | None = None,
    snapshot_id: str | None = None,
    cpus: float | None = None,
    memory_mb: int | None = None,
    env: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    allow_internet_access: bool = False,
    allow_out: Sequence[str] = (),
    deny_out: Sequence[str] = (),
    max_connections: int | None = None,
    bandwidth_kbps: int | None = None,
    concurrency: int = 8,
    retries: int = 0,
    task_timeout: float | None = None,
    queue_timeout_secs: int = 600,
    on_progress: OnProgress | None = None,
    client: AsyncSandboxClient | None = None,
) -> SwarmReport[R]:
    """Runs a job on each task, each on a machine of its own, and returns when all have ended, well or not.

    Cancelled, it ends all its machines.

    Args:
        job: Called with a machine and a task. What it raises is its task's error and harms no other.
        tasks: The tasks, of any type.
        image: The image of the machines. Default: ``python``.
        snapshot_id: A snapshot that they go on from instead: setup that was paid once, forked for each task.
        cpus: Virtual CPUs of each, as in `AsyncSandbox.create`.
        memory_mb: Memory of each in MiB, as in `AsyncSandbox.create`.
        env: Environment of every process in them.
        labels: The caller's own marks.
        allow_internet_access: As in `AsyncSandbox.create`.
        allow_out: As in `AsyncSandbox.create`.
        deny_out: As in `AsyncSandbox.create`.
        max_connections: As in `AsyncSandbox.create`, for each machine.
        bandwidth_kbps: As in `AsyncSandbox.create`, for each machine.
        concurrency: Tasks that are under way at once.
        retries: How often a task that failed is tried again, each time in a new machine.
        task_timeout: Seconds that one attempt may take once its machine runs.
        queue_timeout_secs: Seconds that a machine may wait for room: a burst beyond the budgets takes longer and does
            not fail.
        on_progress: Called after each change; what it does holds up the swarm.
        client: The server to ask. Default: one found by the environment.

    Raises:
        ValueError: `concurrency` or `retries` is out of range.
    """
    items = list(tasks)
    state = _Swarm[R](len(items), concurrency, retries, on_progress)

    async def attempt(index: int) -> None:
        had_machine = False
        try:
            async with AsyncSandbox.create(
                image,
                snapshot_id=snapshot_id,
                cpus=cpus,
                memory_mb=memory_mb,
                env=env,
                labels=labels,
                allow_internet_access=allow_internet_access,
                allow_out=allow_out,
                deny_out=deny_out,
                max_connections=max_connections,
                bandwidth_kbps=bandwidth_kbps,
                queue_timeout_secs=queue_timeout_secs,
                client=client,
            ) as sandbox:
                had_machine = True
                state.ready(index, sandbox.sandbox_id)
                result = await asyncio.wait_for(job(sandbox, items[index]), task_timeout)
        except Exception as error:  # noqa: BLE001 - a job may raise whatever it likes
            state.failed(index, error, had_machine)
        else:
            state.succeeded(index, result)

    running: set[asyncio.Task[None]] = set()
    try:
        while True:
            while (index := state.next()) is not None:
                running.add(asyncio.create_task(attempt(index)))
            if not running:
                return state.report()
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def swarm_sync(
    job: Callable[[Sandbox, T], R],
    tasks: Iterable[T],
    *,
    image: str | None = None,
    snapshot_id: str | None = None,
    cpus: float | None = None,
    memory_mb: int | None = None,
    env: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    allow_internet_access: bool = False,
    allow_out: Sequence[str] = (),
    deny_out: Sequence[str] = (),
    max_connections: int | None = None,
    bandwidth_kbps: int | None = None,
    concurrency: int = 8,
    retries: int = 0,
    queue_timeout_secs: int = 600,
    on_progress: OnProgress | None = None,
    client: SandboxClient | None = None,
) -> SwarmReport[R]:
    """The same as `swarm` for a job that blocks: each task has a thread of its own, at most `concurrency` at once.

    A thread cannot be stopped from outside, so there is no `task_timeout`: give the commands in the job theirs.
    Interrupted, it ends its machines, at which the jobs fail, and raises.
    """
    items = list(tasks)
    state = _Swarm[R](len(items), concurrency, retries, on_progress)
    machines: dict[int, Sandbox] = {}
    cancelled = threading.Event()

    def attempt(index: int) -> None:
        had_machine = False
        try:
            with Sandbox.create(
                image,
                snapshot_id=snapshot_id,
                cpus=cpus,
                memory_mb=memory_mb,
                env=env,
                labels=labels,
                allow_internet_access=allow_internet_access,
                allow_out=allow_out,
                deny_out=deny_out,
                max_connections=max_connections,
                bandwidth_kbps=bandwidth_kbps,
                queue_timeout_secs=queue_timeout_secs,
                client=client,
            ) as sandbox:
                had_machine = True
                machines[index] = sandbox
                # Asked after it is among those that a cancellation ends: one of the two sees the other.
                if cancelled.is_set():
                    return
                state.ready(index, sandbox.sandbox_id)
                result = job(sandbox, items[index])
        except Exception as error:  # noqa: BLE001 - a job may raise whatever it likes
            state.failed(index, error, had_machine)
        else:
            state.succeeded(index, result)
        finally:
            machines.pop(index, None)

    running: set[Future[None]] = set()
    with ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix="forkyard-swarm") as pool:
        try:
            while True:
                while (index := state.next()) is not None:
                    running.add(pool.submit(attempt, index))
                if not running:
                    return state.report()
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
        except BaseException:
            state.plan.cancel(state.now())
            cancelled.set()
            for machine in list(machines.values()):
                # One that has ended meanwhile is what was wanted.
                with contextlib.suppress(ForkyardError):
                    machine.terminate()
            raise
