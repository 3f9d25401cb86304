"""The calls on what tells one event after another: watched folders, and machines that are followed."""

from __future__ import annotations

from typing import Any

from _async_calls import Args, Context, binding
from forkyard import AsyncEventStream, AsyncSandbox, AsyncWatch
from values import raw, record


@binding("files.watch")
async def files_watch(context: Context, on: AsyncSandbox, args: Args) -> Any:
    return context.keep(await on.watch(raw(args.pop("path")), **args), {})


@binding("files.watch_in_scope")
async def files_watch_in_scope(context: Context, on: AsyncSandbox, args: Args) -> Any:
    async with await on.watch(raw(args["path"])) as watch:
        await on.make_dir(args["make"])
        return record(await watch.__anext__())


@binding("watch.read")
async def watch_read(context: Context, on: AsyncWatch, args: Args) -> Any:
    told: list[Any] = []
    async for event in on:
        told.append(record(event))
        if len(told) == args.get("take"):
            break
    return told


@binding("watch.close")
async def watch_close(context: Context, on: AsyncWatch, args: Args) -> Any:
    return await on.close()


@binding("sandbox.events")
async def sandbox_events(context: Context, on: AsyncSandbox, args: Args) -> Any:
    return record(await on.events(args.get("cursor"), wait=args.get("wait_ms", 0) / 1000))


@binding("sandbox.follow_events")
async def sandbox_follow_events(context: Context, on: AsyncSandbox, args: Args) -> Any:
    return context.keep(on.follow_events(args.get("cursor")), {})


@binding("sandbox.follow_events_in_scope")
async def sandbox_follow_events_in_scope(context: Context, on: AsyncSandbox, args: Args) -> Any:
    async with on.follow_events() as events:
        return record(await events.__anext__())


@binding("events.read")
async def events_read(context: Context, on: AsyncEventStream, args: Args) -> Any:
    told: list[Any] = []
    async for event in on:
        told.append(record(event))
        if len(told) == args.get("take"):
            break
    return told


@binding("events.close")
async def events_close(context: Context, on: AsyncEventStream, args: Args) -> Any:
    return await on.close()
