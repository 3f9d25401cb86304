"""The calls on files and processes in a machine."""

from __future__ import annotations

from typing import Any

from _async_calls import Args, Context, binding
from forkyard import AsyncProcess, AsyncSandbox, OutputStream
from values import as_bytes, raw, record


@binding("files.read")
async def files_read(context: Context, on: AsyncSandbox, args: Args) -> Any:
    path = raw(args.pop("path"))
    return as_bytes(await on.read_file(path, **args))


@binding("files.read_text")
async def files_read_text(context: Context, on: AsyncSandbox, args: Args) -> Any:
    return await on.read_text(raw(args["path"]))


@binding("files.write")
async def files_write(context: Context, on: AsyncSandbox, args: Args) -> Any:
    path, data = raw(args.pop("path")), raw(args.pop("data"))
    return record(await on.write_file(path, data, **args))


@binding("files.list")
async def files_list(context: Context, on: AsyncSandbox, args: Args) -> Any:
    return record(await on.list_files(raw(args["path"])))


@binding("files.stat")
async def files_stat(context: Context, on: AsyncSandbox, args: Args) -> Any:
    return record(await on.stat(raw(args["path"])))


@binding("files.exists")
async def files_exists(context: Context, on: AsyncSandbox, args: Args) -> Any:
    return await on.exists(raw(args["path"]))


@binding("files.make_dir")
async def files_make_dir(context: Context, on: AsyncSandbox, args: Args) -> Any:
    return record(await on.make_dir(raw(args["path"])))


@binding("files.move")
async def files_move(context: Context, on: AsyncSandbox, args: Args) -> Any:
    source, target = raw(args.pop("source")), raw(args.pop("target"))
    return record(await on.move(source, target, **args))


@binding("files.remove")
async def files_remove(context: Context, on: AsyncSandbox, args: Args) -> Any:
    return await on.remove(raw(args.pop("path")), **args)


@binding("files.upload")
async def files_upload(context: Context, on: AsyncSandbox, args: Args) -> Any:
    told = [0]
    remote = raw(args.pop("remote"))
    info = await on.upload(remote=remote, **args, on_progress=told.append)
    return {**record(info), "told": told[-1]}


@binding("files.download")
async def files_download(context: Context, on: AsyncSandbox, args: Args) -> Any:
    told = [0]
    size = await on.download(raw(args["remote"]), args["local"], on_progress=told.append)
    return {"size": size, "told": told[-1]}


@binding("files.upload_dir")
async def files_upload_dir(context: Context, on: AsyncSandbox, args: Args) -> Any:
    told = [0]
    summary = await on.upload_dir(args["local"], raw(args["remote"]), on_progress=told.append)
    return {**record(summary), "told": told[-1]}


@binding("files.download_dir")
async def files_download_dir(context: Context, on: AsyncSandbox, args: Args) -> Any:
    told = [0]
    summary = await on.download_dir(raw(args["remote"]), args["local"], on_progress=told.append)
    return {**record(summary), "told": told[-1]}


@binding("process.id")
async def process_id(context: Context, on: AsyncProcess, args: Args) -> Any:
    return {"id": on.id}


@binding("process.read")
async def process_read(context: Context, on: AsyncProcess, args: Args) -> Any:
    until = args.get("until")
    stdout = b""
    text = dict.fromkeys(OutputStream, "")
    async for event in on:
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
async def process_wait(context: Context, on: AsyncProcess, args: Args) -> Any:
    return record(await on.wait())


@binding("process.info")
async def process_info(context: Context, on: AsyncProcess, args: Args) -> Any:
    return record(await on.info())


@binding("process.send_signal")
async def process_send_signal(context: Context, on: AsyncProcess, args: Args) -> Any:
    return await on.send_signal(args["signal"])


@binding("process.kill")
async def process_kill(context: Context, on: AsyncProcess, args: Args) -> Any:
    return await on.kill()


@binding("process.write_stdin")
async def process_write_stdin(context: Context, on: AsyncProcess, args: Args) -> Any:
    return await on.write_stdin(raw(args["data"]))


@binding("process.close_stdin")
async def process_close_stdin(context: Context, on: AsyncProcess, args: Args) -> Any:
    return await on.close_stdin()
