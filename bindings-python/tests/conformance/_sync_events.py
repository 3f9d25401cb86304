# Written by tools/unasync.py from _async_events.py: edit that file, then run the tool.
"""The calls on what tells one event after another: watched folders, and machines that are followed."""

from __future__ import annotations

from typing import Any

from _sync_calls import Args, Context, binding
from forkyard import EventStream, Sandbox, Watch
from values import raw, record


@binding("files.watch")
def files_watch(context: Context, on: Sandbox, args: Args) -> Any:
    return context.keep(on.watch(raw(args.pop("path")), **args), {})


@binding("files.watch_in_scope")
def files_watch_in_scope(context: Context, on: Sandbox, args: Args) -> Any:
    with on.watch(raw(args["path"])) as watch:
        on.make_dir(args["make"])
        return record(watch.__next__())


@binding("watch.read")
def watch_read(context: Context, on: Watch, args: Args) -> Any:
    told: list[Any] = []
    for event in on:
        told.append(record(event))
        if len(told) == args.get("take"):
            break
    return told


@binding("watch.close")
def watch_close(context: Context, on: Watch, args: Args) -> Any:
    return on.close()


@binding("sandbox.events")
def sandbox_events(context: Context, on: Sandbox, args: Args) -> Any:
    return record(on.events(args.get("cursor"), wait=args.get("wait_ms", 0) / 1000))


@binding("sandbox.follow_events")
def sandbox_follow_events(context: Context, on: Sandbox, args: Args) -> Any:
    return context.keep(on.follow_events(args.get("cursor")), {})


@binding("sandbox.follow_events_in_scope")
def sandbox_follow_events_in_scope(context: Context, on: Sandbox, args: Args) -> Any:
    with on.follow_events() as events:
        return record(events.__next__())


@binding("events.read")
def events_read(context: Context, on: EventStream, args: Args) -> Any:
    told: list[Any] = []
    for event in on:
        told.append(record(event))
        if len(told) == args.get("take"):
            break
    return told


@binding("events.close")
def events_close(context: Context, on: EventStream, args: Args) -> Any:
    return on.close()
