# Written by tools/unasync.py from _async_guest.py: edit that file, then run the tool.
"""The calls on files and processes in a machine."""

from __future__ import annotations

from typing import Any

from _sync_calls import Args, Context, binding
from forkyard import Process, Sandbox, OutputStream
from values import as_bytes, raw, record


@binding("files.read")
def files_read(context: Context, on: Sandbox, args: Args) -> Any:
    path = raw(args.pop("path"))
    return as_bytes(on.read_file(path, **args))


@binding("files.read_text")
def files_read_text(context: Context, on: Sandbox, args: Args) -> Any:
    return on.read_text(raw(args["path"]))


@binding("files.write")
def files_write(context: Context, on: Sandbox, args: Args) -> Any:
    path, data = raw(args.pop("path")), raw(args.pop("data"))
    return record(on.write_file(path, data, **args))


@binding("files.list")
def files_list(context: Context, on: Sandbox, args: Args) -> Any:
    return record(on.list_files(raw(args["path"])))


@binding("files.stat")
def files_stat(context: Context, on: Sandbox, args: Args) -> Any:
    return record(on.stat(raw(args["path"])))


@binding("files.exists")
def files_exists(context: Context, on: Sandbox, args: Args) -> Any:
    return on.exists(raw(args["path"]))


@binding("files.make_dir")
def files_make_dir(context: Context, on: Sandbox, args: Args) -> Any:
    return record(on.make_dir(raw(args["path"])))


@binding("files.move")
def files_move(context: Context, on: Sandbox, args: Args) -> Any:
    source, target = raw(args.pop("source")), raw(args.pop("target"))
    return record(on.move(source, target, **args))


@binding("files.remove")
def files_remove(context: Context, on: Sandbox, args: Args) -> Any:
    return on.remove(raw(args.pop("path")), **args)


@binding("files.upload")
def files_upload(context: Context, on: Sandbox, args: Args) -> Any:
    told = [0]
    remote = raw(args.pop("remote"))
    info = on.upload(remote=remote, **args, on_progress=told.append)
    return {**record(info), "told": told[-1]}


@binding("files.download")
def files_download(context: Context, on: Sandbox, args: Args) -> Any:
    told = [0]
    size = on.download(raw(args["remote"]), args["local"], on_progress=told.append)
    return {"size": size, "told": told[-1]}


@binding("files.upload_dir")
def files_upload_dir(context: Context, on: Sandbox, args: Args) -> Any:
    told = [0]
    summary = on.upload_dir(args["local"], raw(args["remote"]), on_progress=told.append)
    return {**record(summary), "told": told[-1]}


@binding("files.download_dir")
def files_download_dir(context: Context, on: Sandbox, args: Args) -> Any:
    told = [0]
    summary = on.download_dir(raw(args["remote"]), args["local"], on_progress=told.append)
    return {**record(summary), "told": told[-1]}


@binding("process.id")
def process_id(context: Context, on: Process, args: Args) -> Any:
    return {"id": on.id}


@binding("process.read")
def process_read(context: Context, on: Process, args: Args) -> Any:
    until = args.get("until")
    stdout = b""
    text = dict.fromkeys(OutputStream, "")
    for event in on:
        text[event.stream] += event.text
        if event.stream is OutputStream.STDOUT:
            stdout += event.data
        if until is not None and until in text[OutputStream.STDOUT]:
            break
    return {
        "stdout": text[OutputStream.STDOUT],
        "stderr": text[OutputStream.STDERR],
        "stdout_bytes": as_bytes(stdout),
        "dropped": on.dropped,
        "exit": record(on.exit),
    }


@binding("process.wait")
def process_wait(context: Context, on: Process, args: Args) -> Any:
    return record(on.wait())


@binding("process.info")
def process_info(context: Context, on: Process, args: Args) -> Any:
    return record(on.info())


@binding("process.send_signal")
def process_send_signal(context: Context, on: Process, args: Args) -> Any:
    return on.send_signal(args["signal"])


@binding("process.kill")
def process_kill(context: Context, on: Process, args: Args) -> Any:
    return on.kill()


@binding("process.write_stdin")
def process_write_stdin(context: Context, on: Process, args: Args) -> Any:
    return on.write_stdin(raw(args["data"]))


@binding("process.close_stdin")
def process_close_stdin(context: Context, on: Process, args: Args) -> Any:
    return on.close_stdin()
