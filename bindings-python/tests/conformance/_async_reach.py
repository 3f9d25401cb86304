"""The calls on terminals and ports: what somebody outside sees of a machine while it runs."""

from __future__ import annotations

from typing import Any

from _async_calls import Args, Context, binding
from forkyard import AsyncForward, AsyncPty, AsyncSandbox, AsyncTunnel
from values import as_bytes, raw, record, seconds


def terminal(args: Args) -> Args:
    for name in ("timeout", "hangup_after"):
        if f"{name}_ms" in args:
            args[name] = seconds(args.pop(f"{name}_ms"))
    return args


@binding("sandbox.pty")
async def sandbox_pty(context: Context, on: AsyncSandbox, args: Args) -> Any:
    pty = await on.pty(**terminal(args))
    return context.keep(pty, {"id": pty.id})


@binding("sandbox.attach_pty")
async def sandbox_attach_pty(context: Context, on: AsyncSandbox, args: Args) -> Any:
    pty = on.attach_pty(args["id"])
    return context.keep(pty, {"id": pty.id})


@binding("sandbox.pty_in_scope")
async def sandbox_pty_in_scope(context: Context, on: AsyncSandbox, args: Args) -> Any:
    async with await on.pty(**terminal(args)) as pty:
        return {"id": pty.id}


@binding("pty.id")
async def pty_id(context: Context, on: AsyncPty, args: Args) -> Any:
    return {"id": on.id}


@binding("pty.read")
async def pty_read(context: Context, on: AsyncPty, args: Args) -> Any:
    until = args.get("until")
    shown = b""
    async for data in on:
        shown += data
        if until is not None and until in shown.decode("utf-8", "replace"):
            break
    return {
        "shown": shown.decode("utf-8", "replace"),
        "shown_bytes": as_bytes(shown),
        "dropped": on.dropped,
        "exit": record(on.exit),
    }


@binding("pty.wait")
async def pty_wait(context: Context, on: AsyncPty, args: Args) -> Any:
    return record(await on.wait())


@binding("pty.write")
async def pty_write(context: Context, on: AsyncPty, args: Args) -> Any:
    return await on.write(raw(args["data"]))


@binding("pty.resize")
async def pty_resize(context: Context, on: AsyncPty, args: Args) -> Any:
    return await on.resize(args["rows"], args["cols"])


@binding("pty.send_signal")
async def pty_send_signal(context: Context, on: AsyncPty, args: Args) -> Any:
    return await on.send_signal(args["signal"])


@binding("pty.kill")
async def pty_kill(context: Context, on: AsyncPty, args: Args) -> Any:
    return await on.kill()


@binding("pty.info")
async def pty_info(context: Context, on: AsyncPty, args: Args) -> Any:
    return record(await on.info())


@binding("pty.detach")
async def pty_detach(context: Context, on: AsyncPty, args: Args) -> Any:
    return await on.detach()


@binding("ports.list")
async def ports_list(context: Context, on: AsyncSandbox, args: Args) -> Any:
    return record(await on.ports.list())


@binding("ports.wait")
async def ports_wait(context: Context, on: AsyncSandbox, args: Args) -> Any:
    return await on.ports.wait(args["port"], timeout=args["timeout_ms"] / 1000)


@binding("ports.url")
async def ports_url(context: Context, on: AsyncSandbox, args: Args) -> Any:
    return on.ports.url(args["port"])


@binding("ports.preview_url")
async def ports_preview_url(context: Context, on: AsyncSandbox, args: Args) -> Any:
    return await on.ports.preview_url(**args)


@binding("ports.connect")
async def ports_connect(context: Context, on: AsyncSandbox, args: Args) -> Any:
    return context.keep(await on.ports.connect(args["port"]), {})


@binding("ports.forward")
async def ports_forward(context: Context, on: AsyncSandbox, args: Args) -> Any:
    forward = await on.ports.forward(args["port"])
    return context.keep(forward, {"host": forward.host, "port": forward.port})


@binding("ports.exchange_in_scope")
async def ports_exchange_in_scope(context: Context, on: AsyncSandbox, args: Args) -> Any:
    async with await on.ports.forward(args["port"]) as forward, await on.ports.connect(args["port"]) as tunnel:
        await tunnel.write(raw(args["data"]))
        await tunnel.close_write()
        heard = b""
        async for data in tunnel:
            heard += data
    return {"heard": as_bytes(heard), "host": forward.host, "port": forward.port}


@binding("forward.close")
async def forward_close(context: Context, on: AsyncForward, args: Args) -> Any:
    return await on.close()


@binding("tunnel.read")
async def tunnel_read(context: Context, on: AsyncTunnel, args: Args) -> Any:
    return as_bytes(await on.read())


@binding("tunnel.read_all")
async def tunnel_read_all(context: Context, on: AsyncTunnel, args: Args) -> Any:
    heard = b""
    async for data in on:
        heard += data
    return as_bytes(heard)


@binding("tunnel.write")
async def tunnel_write(context: Context, on: AsyncTunnel, args: Args) -> Any:
    return await on.write(raw(args["data"]))


@binding("tunnel.close_write")
async def tunnel_close_write(context: Context, on: AsyncTunnel, args: Args) -> Any:
    return await on.close_write()


@binding("tunnel.close")
async def tunnel_close(context: Context, on: AsyncTunnel, args: Args) -> Any:
    return await on.close()
