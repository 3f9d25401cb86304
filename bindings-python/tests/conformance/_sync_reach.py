# Written by tools/unasync.py from _async_reach.py: edit that file, then run the tool.
"""The calls on terminals and ports: what somebody outside sees of a machine while it runs."""

from __future__ import annotations

from typing import Any

from _sync_calls import Args, Context, binding
from forkyard import Forward, Pty, Sandbox, Tunnel
from values import as_bytes, raw, record, seconds


def terminal(args: Args) -> Args:
    for name in ("timeout", "hangup_after"):
        if f"{name}_ms" in args:
            args[name] = seconds(args.pop(f"{name}_ms"))
    return args


@binding("sandbox.pty")
def sandbox_pty(context: Context, on: Sandbox, args: Args) -> Any:
    pty = on.pty(**terminal(args))
    return context.keep(pty, {"id": pty.id})


@binding("sandbox.attach_pty")
def sandbox_attach_pty(context: Context, on: Sandbox, args: Args) -> Any:
    pty = on.attach_pty(args["id"])
    return context.keep(pty, {"id": pty.id})


@binding("sandbox.pty_in_scope")
def sandbox_pty_in_scope(context: Context, on: Sandbox, args: Args) -> Any:
    with on.pty(**terminal(args)) as pty:
        return {"id": pty.id}


@binding("pty.id")
def pty_id(context: Context, on: Pty, args: Args) -> Any:
    return {"id": on.id}


@binding("pty.read")
def pty_read(context: Context, on: Pty, args: Args) -> Any:
    until = args.get("until")
    shown = b""
    for data in on:
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
def pty_wait(context: Context, on: Pty, args: Args) -> Any:
    return record(on.wait())


@binding("pty.write")
def pty_write(context: Context, on: Pty, args: Args) -> Any:
    return on.write(raw(args["data"]))


@binding("pty.resize")
def pty_resize(context: Context, on: Pty, args: Args) -> Any:
    return on.resize(args["rows"], args["cols"])


@binding("pty.send_signal")
def pty_send_signal(context: Context, on: Pty, args: Args) -> Any:
    return on.send_signal(args["signal"])


@binding("pty.kill")
def pty_kill(context: Context, on: Pty, args: Args) -> Any:
    return on.kill()


@binding("pty.info")
def pty_info(context: Context, on: Pty, args: Args) -> Any:
    return record(on.info())


@binding("pty.detach")
def pty_detach(context: Context, on: Pty, args: Args) -> Any:
    return on.detach()


@binding("ports.list")
def ports_list(context: Context, on: Sandbox, args: Args) -> Any:
    return record(on.ports.list())


@binding("ports.wait")
def ports_wait(context: Context, on: Sandbox, args: Args) -> Any:
    return on.ports.wait(args["port"], timeout=args["timeout_ms"] / 1000)


@binding("ports.url")
def ports_url(context: Context, on: Sandbox, args: Args) -> Any:
    return on.ports.url(args["port"])


@binding("ports.preview_url")
def ports_preview_url(context: Context, on: Sandbox, args: Args) -> Any:
    return on.ports.preview_url(**args)


@binding("ports.connect")
def ports_connect(context: Context, on: Sandbox, args: Args) -> Any:
    return context.keep(on.ports.connect(args["port"]), {})


@binding("ports.forward")
def ports_forward(context: Context, on: Sandbox, args: Args) -> Any:
    forward = on.ports.forward(args["port"])
    return context.keep(forward, {"host": forward.host, "port": forward.port})


@binding("ports.exchange_in_scope")
def ports_exchange_in_scope(context: Context, on: Sandbox, args: Args) -> Any:
    with on.ports.forward(args["port"]) as forward, on.ports.connect(args["port"]) as tunnel:
        tunnel.write(raw(args["data"]))
        tunnel.close_write()
        heard = b""
        for data in tunnel:
            heard += data
    return {"heard": as_bytes(heard), "host": forward.host, "port": forward.port}


@binding("forward.close")
def forward_close(context: Context, on: Forward, args: Args) -> Any:
    return on.close()


@binding("tunnel.read")
def tunnel_read(context: Context, on: Tunnel, args: Args) -> Any:
    return as_bytes(on.read())


@binding("tunnel.read_all")
def tunnel_read_all(context: Context, on: Tunnel, args: Args) -> Any:
    heard = b""
    for data in on:
        heard += data
    return as_bytes(heard)


@binding("tunnel.write")
def tunnel_write(context: Context, on: Tunnel, args: Args) -> Any:
    return on.write(raw(args["data"]))


@binding("tunnel.close_write")
def tunnel_close_write(context: Context, on: Tunnel, args: Args) -> Any:
    return on.close_write()


@binding("tunnel.close")
def tunnel_close(context: Context, on: Tunnel, args: Args) -> Any:
    return on.close()
