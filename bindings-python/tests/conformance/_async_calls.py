"""The calls that the suite asks for, through the public API: the table, and those on clients and machines."""

from __future__ import annotations

from collections.abc import Awaitable, Callable  # sync: from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import forkyard
from forkyard import (
    AsyncSandbox,
    AsyncSandboxClient,
    CheckpointType,
    KeyScope,
    SandboxStatus,
    WhenFull,
)
from managed import managed
from values import failure, raw, record, result, seconds

Args = dict[str, Any]


@dataclass
class Context:
    """What calls answered with that can be called on, by handle."""

    objects: dict[str, Any] = field(default_factory=dict)

    def keep(self, value: Any, said: Args) -> Args:
        """Keeps an object, and adds its handle to what is said of it."""
        handle = f"h{len(self.objects)}"
        self.objects[handle] = value
        return {**said, "$handle": handle}


Run = Callable[[Context, Any, Args], Awaitable[Any]]  # sync: Run = Callable[[Context, Any, Args], Any]

CALLS: dict[str, Run] = {}


def binding(name: str) -> Callable[[Run], Run]:
    """Enters a function into the table of calls."""

    def enter(run: Run) -> Run:
        CALLS[name] = run
        return run

    return enter


def opened(url: str | None = None, api_key: str | None = None, timeout_ms: float | None = None) -> AsyncSandboxClient:
    return AsyncSandboxClient(url, api_key, timeout=seconds(timeout_ms))


def network(args: Args) -> Args:
    """A policy is spread over the arguments in Python."""
    policy = args.pop("network", {})
    return {**args, **policy}


def described(sandbox: AsyncSandbox) -> Args:
    return {"sandbox_id": sandbox.sandbox_id, "name": sandbox.name, "status": sandbox.status.value}


@binding("client.open")
async def client_open(context: Context, on: None, args: Args) -> Any:
    return context.keep(opened(**args), {})


@binding("client.in_scope")
async def client_in_scope(context: Context, on: None, args: Args) -> Any:
    async with opened(**args) as client:
        return record(await client.server_info())


@binding("client.create")
async def client_create(context: Context, on: AsyncSandboxClient, args: Args) -> Any:
    sandbox = await AsyncSandbox.create(**network(args), client=on)
    return context.keep(sandbox, described(sandbox))


@binding("client.create_in_scope")
async def client_create_in_scope(context: Context, on: AsyncSandboxClient, args: Args) -> Any:
    command = args.pop("run")
    async with AsyncSandbox.create(**args, client=on) as sandbox:
        return {**await run(context, sandbox, command), "sandbox_id": sandbox.sandbox_id}


@binding("client.get_or_create")
async def client_get_or_create(context: Context, on: AsyncSandboxClient, args: Args) -> Any:
    sandbox = await AsyncSandbox.get_or_create(**network(args), client=on)
    return context.keep(sandbox, described(sandbox))


@binding("client.connect")
async def client_connect(context: Context, on: AsyncSandboxClient, args: Args) -> Any:
    sandbox = await AsyncSandbox.connect(args["name_or_id"], client=on)
    return context.keep(sandbox, described(sandbox))


@binding("client.get")
async def client_get(context: Context, on: AsyncSandboxClient, args: Args) -> Any:
    return record(await on.get(args["id"]))


@binding("client.list")
async def client_list(context: Context, on: AsyncSandboxClient, args: Args) -> Any:
    return record(await on.list())


def filtered(args: Args) -> Args:
    """What says which machines to list."""
    return {**args, **({"status": SandboxStatus(args["status"])} if "status" in args else {})}


@binding("client.find")
async def client_find(context: Context, on: AsyncSandboxClient, args: Args) -> Any:
    return record(await on.list(**filtered(args)))


@binding("client.iter")
async def client_iter(context: Context, on: AsyncSandboxClient, args: Args) -> Any:
    found: list[Any] = []
    async for machine in on.iter(**filtered(args.get("filter", {}))):
        found.append(record(machine))
        if len(found) == args.get("take"):
            break
    return found


@binding("client.terminate")
async def client_terminate(context: Context, on: AsyncSandboxClient, args: Args) -> Any:
    return record(await on.terminate(args["id"]))


@binding("client.images")
async def client_images(context: Context, on: AsyncSandboxClient, args: Args) -> Any:
    return record(await on.images())


@binding("client.server_info")
async def client_server_info(context: Context, on: AsyncSandboxClient, args: Args) -> Any:
    return record(await on.server_info())


@binding("client.create_key")
async def client_create_key(context: Context, on: AsyncSandboxClient, args: Args) -> Any:
    scope = {"scope": KeyScope(args.pop("scope"))} if "scope" in args else {}
    return record(await on.create_key(**args, **scope))


@binding("client.list_keys")
async def client_list_keys(context: Context, on: AsyncSandboxClient, args: Args) -> Any:
    return record(await on.list_keys())


@binding("client.revoke_key")
async def client_revoke_key(context: Context, on: AsyncSandboxClient, args: Args) -> Any:
    return await on.revoke_key(args["id"])


@binding("client.snapshot")
async def client_snapshot(context: Context, on: AsyncSandboxClient, args: Args) -> Any:
    return record(await on.snapshot(args["id"]))


@binding("client.snapshots")
async def client_snapshots(context: Context, on: AsyncSandboxClient, args: Args) -> Any:
    return record(await on.snapshots())


@binding("client.delete_snapshot")
async def client_delete_snapshot(context: Context, on: AsyncSandboxClient, args: Args) -> Any:
    return await on.delete_snapshot(args["id"])


@binding("client.retention")
async def client_retention(context: Context, on: AsyncSandboxClient, args: Args) -> Any:
    return record(await on.retention())


@binding("client.set_retention")
async def client_set_retention(context: Context, on: AsyncSandboxClient, args: Args) -> Any:
    when_full = {"when_full": WhenFull(args.pop("when_full"))} if "when_full" in args else {}
    return record(await on.set_retention(**args, **when_full))


@binding("client.create_pool")
async def client_create_pool(context: Context, on: AsyncSandboxClient, args: Args) -> Any:
    return record(await on.create_pool(**args))


@binding("client.pool")
async def client_pool(context: Context, on: AsyncSandboxClient, args: Args) -> Any:
    return record(await on.pool(args["id"]))


@binding("client.pools")
async def client_pools(context: Context, on: AsyncSandboxClient, args: Args) -> Any:
    return record(await on.pools())


@binding("client.change_pool")
async def client_change_pool(context: Context, on: AsyncSandboxClient, args: Args) -> Any:
    return record(await on.change_pool(args["id"], **args["spec"]))


@binding("client.delete_pool")
async def client_delete_pool(context: Context, on: AsyncSandboxClient, args: Args) -> Any:
    return await on.delete_pool(args["id"])


@binding("client.swarm")
async def client_swarm(context: Context, on: AsyncSandboxClient, args: Args) -> Any:
    tasks, limit = args.pop("tasks"), seconds(args.pop("task_timeout_ms", None))
    told = 0

    def on_progress(progress: forkyard.SwarmProgress) -> None:
        nonlocal told
        told = progress.succeeded + progress.failed

    async def job(sandbox: AsyncSandbox, script: str) -> str:
        # A thread cannot be stopped from outside: the command has the task's time there.
        timeout = None  # sync: timeout = limit
        return (await sandbox.run("sh", ["-c", script], check=True, timeout=timeout)).stdout

    swarm = forkyard.swarm  # sync: swarm = forkyard.swarm_sync
    more = {"task_timeout": limit}  # sync: more: Args = {}
    report = await swarm(job, tasks, **args, **more, on_progress=on_progress, client=on)
    return {
        "succeeded": report.succeeded,
        "failed": report.failed,
        "cancelled": report.cancelled,
        "results": report.results,
        "told": told,
        "tasks": [
            {
                "index": task.index,
                "status": task.status.value if task.ok == (task.error is None) else "contradicts itself",
                "attempts": len(task.attempts),
                "result": task.result,
                "error": None if task.error is None else failure(task.error),
            }
            for task in report.tasks
        ],
    }


@binding("sandbox.record")
async def sandbox_record(context: Context, on: AsyncSandbox, args: Args) -> Any:
    return described(on)


@binding("sandbox.info")
async def sandbox_info(context: Context, on: AsyncSandbox, args: Args) -> Any:
    return record(await on.info())


@binding("sandbox.in_scope")
async def sandbox_in_scope(context: Context, on: AsyncSandbox, args: Args) -> Any:
    async with on as sandbox:
        return await run(context, sandbox, args)


@binding("sandbox.terminate")
async def sandbox_terminate(context: Context, on: AsyncSandbox, args: Args) -> Any:
    return record(await on.terminate())


@binding("sandbox.checkpoint")
async def sandbox_checkpoint(context: Context, on: AsyncSandbox, args: Args) -> Any:
    if "checkpoint_type" in args:
        args["checkpoint_type"] = CheckpointType(args["checkpoint_type"])
    return record(await on.checkpoint(**args))


@binding("sandbox.delete_snapshot")
async def sandbox_delete_snapshot(context: Context, on: AsyncSandbox, args: Args) -> Any:
    return await AsyncSandbox.delete_snapshot(args["id"], client=context.objects[args["client"]])


@binding("sandbox.fork")
async def sandbox_fork(context: Context, on: AsyncSandbox, args: Args) -> Any:
    return [context.keep(fork, described(fork)) for fork in await on.fork(**network(args))]


@binding("sandbox.suspend")
async def sandbox_suspend(context: Context, on: AsyncSandbox, args: Args) -> Any:
    return record(await on.suspend())


@binding("sandbox.resume")
async def sandbox_resume(context: Context, on: AsyncSandbox, args: Args) -> Any:
    return record(await on.resume())


@binding("sandbox.extend_timeout")
async def sandbox_extend_timeout(context: Context, on: AsyncSandbox, args: Args) -> Any:
    return record(await on.extend_timeout(args["timeout_secs"]))


@binding("sandbox.restore")
async def sandbox_restore(context: Context, on: AsyncSandbox, args: Args) -> Any:
    return record(await on.restore(args["id"]))


@binding("sandbox.network")
async def sandbox_network(context: Context, on: AsyncSandbox, args: Args) -> Any:
    return record(await on.network())


@binding("sandbox.update_network")
async def sandbox_update_network(context: Context, on: AsyncSandbox, args: Args) -> Any:
    return record(await on.update_network(**args))


@binding("sandbox.network_events")
async def sandbox_network_events(context: Context, on: AsyncSandbox, args: Args) -> Any:
    wait = args.pop("wait_ms", 0) / 1000
    return record(await on.network_events(**args, wait=wait))


async def run(context: Context, sandbox: AsyncSandbox, args: Args, **more: Any) -> Args:
    """Runs a command to its end."""
    if "stdin" in args:
        args["stdin"] = raw(args["stdin"])
    if "timeout_ms" in args:
        args["timeout"] = seconds(args.pop("timeout_ms"))
    return result(await sandbox.run(**args, **more))


@binding("sandbox.run")
async def sandbox_run(context: Context, on: AsyncSandbox, args: Args) -> Any:
    return await run(context, on, args)


@binding("sandbox.run_streamed")
async def sandbox_run_streamed(context: Context, on: AsyncSandbox, args: Args) -> Any:
    stdout: list[str] = []
    stderr: list[str] = []
    ended = await run(context, on, args, on_stdout=stdout.append, on_stderr=stderr.append)
    return {**ended, "heard": {"stdout": "".join(stdout), "stderr": "".join(stderr)}}


@binding("sandbox.start")
async def sandbox_start(context: Context, on: AsyncSandbox, args: Args) -> Any:
    if "timeout_ms" in args:
        args["timeout"] = seconds(args.pop("timeout_ms"))
    process = await on.start(**managed(args))
    return context.keep(process, {"id": process.id})


@binding("sandbox.process")
async def sandbox_process(context: Context, on: AsyncSandbox, args: Args) -> Any:
    process = on.process(args["id"])
    return context.keep(process, {"id": process.id})


@binding("sandbox.processes")
async def sandbox_processes(context: Context, on: AsyncSandbox, args: Args) -> Any:
    return record(await on.processes())
