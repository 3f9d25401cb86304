# Written by tools/unasync.py from _async_calls.py: edit that file, then run the tool.
"""The calls that the suite asks for, through the public API: the table, and those on clients and machines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import forkyard
from forkyard import (
    Sandbox,
    SandboxClient,
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


Run = Callable[[Context, Any, Args], Any]

CALLS: dict[str, Run] = {}


def binding(name: str) -> Callable[[Run], Run]:
    """Enters a function into the table of calls."""

    def enter(run: Run) -> Run:
        CALLS[name] = run
        return run

    return enter


def opened(url: str | None = None, api_key: str | None = None, timeout_ms: float | None = None) -> SandboxClient:
    return SandboxClient(url, api_key, timeout=seconds(timeout_ms))


def network(args: Args) -> Args:
    """A policy is spread over the arguments in Python."""
    policy = args.pop("network", {})
    return {**args, **policy}


def described(sandbox: Sandbox) -> Args:
    return {"sandbox_id": sandbox.sandbox_id, "name": sandbox.name, "status": sandbox.status.value}


@binding("client.open")
def client_open(context: Context, on: None, args: Args) -> Any:
    return context.keep(opened(**args), {})


@binding("client.in_scope")
def client_in_scope(context: Context, on: None, args: Args) -> Any:
    with opened(**args) as client:
        return record(client.server_info())


@binding("client.create")
def client_create(context: Context, on: SandboxClient, args: Args) -> Any:
    sandbox = Sandbox.create(**network(args), client=on)
    return context.keep(sandbox, described(sandbox))


@binding("client.create_in_scope")
def client_create_in_scope(context: Context, on: SandboxClient, args: Args) -> Any:
    command = args.pop("run")
    with Sandbox.create(**args, client=on) as sandbox:
        return {**run(context, sandbox, command), "sandbox_id": sandbox.sandbox_id}


@binding("client.get_or_create")
def client_get_or_create(context: Context, on: SandboxClient, args: Args) -> Any:
    sandbox = Sandbox.get_or_create(**network(args), client=on)
    return context.keep(sandbox, described(sandbox))


@binding("client.connect")
def client_connect(context: Context, on: SandboxClient, args: Args) -> Any:
    sandbox = Sandbox.connect(args["name_or_id"], client=on)
    return context.keep(sandbox, described(sandbox))


@binding("client.get")
def client_get(context: Context, on: SandboxClient, args: Args) -> Any:
    return record(on.get(args["id"]))


@binding("client.list")
def client_list(context: Context, on: SandboxClient, args: Args) -> Any:
    return record(on.list())


def filtered(args: Args) -> Args:
    """What says which machines to list."""
    return {**args, **({"status": SandboxStatus(args["status"])} if "status" in args else {})}


@binding("client.find")
def client_find(context: Context, on: SandboxClient, args: Args) -> Any:
    return record(on.list(**filtered(args)))


@binding("client.iter")
def client_iter(context: Context, on: SandboxClient, args: Args) -> Any:
    found: list[Any] = []
    for machine in on.iter(**filtered(args.get("filter", {}))):
        found.append(record(machine))
        if len(found) == args.get("take"):
            break
    return found


@binding("client.terminate")
def client_terminate(context: Context, on: SandboxClient, args: Args) -> Any:
    return record(on.terminate(args["id"]))


@binding("client.images")
def client_images(context: Context, on: SandboxClient, args: Args) -> Any:
    return record(on.images())


@binding("client.server_info")
def client_server_info(context: Context, on: SandboxClient, args: Args) -> Any:
    return record(on.server_info())


@binding("client.create_key")
def client_create_key(context: Context, on: SandboxClient, args: Args) -> Any:
    scope = {"scope": KeyScope(args.pop("scope"))} if "scope" in args else {}
    return record(on.create_key(**args, **scope))


@binding("client.list_keys")
def client_list_keys(context: Context, on: SandboxClient, args: Args) -> Any:
    return record(on.list_keys())


@binding("client.revoke_key")
def client_revoke_key(context: Context, on: SandboxClient, args: Args) -> Any:
    return on.revoke_key(args["id"])


@binding("client.snapshot")
def client_snapshot(context: Context, on: SandboxClient, args: Args) -> Any:
    return record(on.snapshot(args["id"]))


@binding("client.snapshots")
def client_snapshots(context: Context, on: SandboxClient, args: Args) -> Any:
    return record(on.snapshots())


@binding("client.delete_snapshot")
def client_delete_snapshot(context: Context, on: SandboxClient, args: Args) -> Any:
    return on.delete_snapshot(args["id"])


@binding("client.retention")
def client_retention(context: Context, on: SandboxClient, args: Args) -> Any:
    return record(on.retention())


@binding("client.set_retention")
def client_set_retention(context: Context, on: SandboxClient, args: Args) -> Any:
    when_full = {"when_full": WhenFull(args.pop("when_full"))} if "when_full" in args else {}
    return record(on.set_retention(**args, **when_full))


@binding("client.create_pool")
def client_create_pool(context: Context, on: SandboxClient, args: Args) -> Any:
    return record(on.create_pool(**args))


@binding("client.pool")
def client_pool(context: Context, on: SandboxClient, args: Args) -> Any:
    return record(on.pool(args["id"]))


@binding("client.pools")
def client_pools(context: Context, on: SandboxClient, args: Args) -> Any:
    return record(on.pools())


@binding("client.change_pool")
def client_change_pool(context: Context, on: SandboxClient, args: Args) -> Any:
    return record(on.change_pool(args["id"], **args["spec"]))


@binding("client.delete_pool")
def client_delete_pool(context: Context, on: SandboxClient, args: Args) -> Any:
    return on.delete_pool(args["id"])


@binding("client.swarm")
def client_swarm(context: Context, on: SandboxClient, args: Args) -> Any:
    tasks, limit = args.pop("tasks"), seconds(args.pop("task_timeout_ms", None))
    told = 0

    def on_progress(progress: forkyard.SwarmProgress) -> None:
        nonlocal told
        told = progress.succeeded + progress.failed

    def job(sandbox: Sandbox, script: str) -> str:
        # A thread cannot be stopped from outside: the command has the task's time there.
        timeout = limit
        return (sandbox.run("sh", ["-c", script], check=True, timeout=timeout)).stdout

    swarm = forkyard.swarm_sync
    more: Args = {}
    report = swarm(job, tasks, **args, **more, on_progress=on_progress, client=on)
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
def sandbox_record(context: Context, on: Sandbox, args: Args) -> Any:
    return described(on)


@binding("sandbox.info")
def sandbox_info(context: Context, on: Sandbox, args: Args) -> Any:
    return record(on.info())


@binding("sandbox.in_scope")
def sandbox_in_scope(context: Context, on: Sandbox, args: Args) -> Any:
    with on as sandbox:
        return run(context, sandbox, args)


@binding("sandbox.terminate")
def sandbox_terminate(context: Context, on: Sandbox, args: Args) -> Any:
    return record(on.terminate())


@binding("sandbox.checkpoint")
def sandbox_checkpoint(context: Context, on: Sandbox, args: Args) -> Any:
    if "checkpoint_type" in args:
        args["checkpoint_type"] = CheckpointType(args["checkpoint_type"])
    return record(on.checkpoint(**args))


@binding("sandbox.delete_snapshot")
def sandbox_delete_snapshot(context: Context, on: Sandbox, args: Args) -> Any:
    return Sandbox.delete_snapshot(args["id"], client=context.objects[args["client"]])


@binding("sandbox.fork")
def sandbox_fork(context: Context, on: Sandbox, args: Args) -> Any:
    return [context.keep(fork, described(fork)) for fork in on.fork(**network(args))]


@binding("sandbox.suspend")
def sandbox_suspend(context: Context, on: Sandbox, args: Args) -> Any:
    return record(on.suspend())


@binding("sandbox.resume")
def sandbox_resume(context: Context, on: Sandbox, args: Args) -> Any:
    return record(on.resume())


@binding("sandbox.extend_timeout")
def sandbox_extend_timeout(context: Context, on: Sandbox, args: Args) -> Any:
    return record(on.extend_timeout(args["timeout_secs"]))


@binding("sandbox.restore")
def sandbox_restore(context: Context, on: Sandbox, args: Args) -> Any:
    return record(on.restore(args["id"]))


@binding("sandbox.network")
def sandbox_network(context: Context, on: Sandbox, args: Args) -> Any:
    return record(on.network())


@binding("sandbox.update_network")
def sandbox_update_network(context: Context, on: Sandbox, args: Args) -> Any:
    return record(on.update_network(**args))


@binding("sandbox.network_events")
def sandbox_network_events(context: Context, on: Sandbox, args: Args) -> Any:
    wait = args.pop("wait_ms", 0) / 1000
    return record(on.network_events(**args, wait=wait))


def run(context: Context, sandbox: Sandbox, args: Args, **more: Any) -> Args:
    """Runs a command to its end."""
    if "stdin" in args:
        args["stdin"] = raw(args["stdin"])
    if "timeout_ms" in args:
        args["timeout"] = seconds(args.pop("timeout_ms"))
    return result(sandbox.run(**args, **more))


@binding("sandbox.run")
def sandbox_run(context: Context, on: Sandbox, args: Args) -> Any:
    return run(context, on, args)


@binding("sandbox.run_streamed")
def sandbox_run_streamed(context: Context, on: Sandbox, args: Args) -> Any:
    stdout: list[str] = []
    stderr: list[str] = []
    ended = run(context, on, args, on_stdout=stdout.append, on_stderr=stderr.append)
    return {**ended, "heard": {"stdout": "".join(stdout), "stderr": "".join(stderr)}}


@binding("sandbox.start")
def sandbox_start(context: Context, on: Sandbox, args: Args) -> Any:
    if "timeout_ms" in args:
        args["timeout"] = seconds(args.pop("timeout_ms"))
    process = on.start(**managed(args))
    return context.keep(process, {"id": process.id})


@binding("sandbox.process")
def sandbox_process(context: Context, on: Sandbox, args: Args) -> Any:
    process = on.process(args["id"])
    return context.keep(process, {"id": process.id})


@binding("sandbox.processes")
def sandbox_processes(context: Context, on: Sandbox, args: Args) -> Any:
    return record(on.processes())
