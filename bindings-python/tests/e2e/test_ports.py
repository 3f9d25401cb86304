"""Ports of a machine, as Python says it. What is passed on, and what not, is tested with the server."""

from __future__ import annotations

import asyncio
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from forkyard import AsyncSandbox, DeadlineExceeded, FailedPrecondition, InvalidArgument, ListeningPort, Sandbox

ECHO = """
import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)
socketserver.ThreadingTCPServer(("127.0.0.1", 7000), Echo).serve_forever()
"""


@pytest.fixture(scope="module")
def serving(sandbox: Sandbox) -> Iterator[Sandbox]:
    """A machine with a web server and one that echoes."""
    sandbox.write_file("/tmp/site/index.html", "a page")
    web = sandbox.start("python3", ["-m", "http.server", "8000", "--directory", "/tmp/site"])
    echo = sandbox.start("python3", ["-c", ECHO])
    sandbox.ports.wait(8000)
    sandbox.ports.wait(7000)
    yield sandbox
    web.kill()
    echo.kill()


def fetch(url: str, **headers: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
        return str(answer.read().decode())


def test_pages_are_reached_with_a_key_or_a_preview(serving: Sandbox) -> None:
    assert serving.ports.list() == [ListeningPort(7000, True), ListeningPort(8000, False)]
    key = os.environ["FORKYARD_API_KEY"]
    assert fetch(serving.ports.url(8000) + "index.html", Authorization=f"Bearer {key}") == "a page"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        fetch(serving.ports.url(8000))
    assert fetch(serving.ports.preview_url(8000)) == "a page"
    with pytest.raises(InvalidArgument, match="expires_secs"):
        serving.ports.preview_url(8000, expires_secs=0)
    with pytest.raises(InvalidArgument, match="a port must be"):
        serving.ports.url(0)


def test_a_stream_goes_both_ways(serving: Sandbox) -> None:
    with serving.ports.connect(7000) as stream:
        stream.write("one")
        assert stream.read() == b"one"
        stream.write(b"two")
        stream.close_write()
        assert b"".join(stream) == b"two"
        assert stream.read() == b""
    with pytest.raises(FailedPrecondition, match="closed"):
        stream.write("more")
    with pytest.raises(FailedPrecondition, match="nothing listens on port 81 "):
        serving.ports.connect(81)
    with pytest.raises(DeadlineExceeded, match="nothing listens on port 81 "):
        serving.ports.wait(81, timeout=0.2)


async def test_streams_and_forwarded_ports_without_blocking(serving: Sandbox) -> None:
    machine = await AsyncSandbox.connect(serving.sandbox_id)
    async with await machine.ports.connect(7000) as stream:
        waiting = asyncio.create_task(stream.read())
        await stream.write("three")
        assert await waiting == b"three"
        # Closing it ends a read that waits.
        waiting = asyncio.create_task(stream.read())
        await asyncio.sleep(0)
    assert await waiting == b""
    async with await machine.ports.forward(7000) as local:
        reader, writer = await asyncio.open_connection(local.host, local.port)
        writer.write(b"x" * 1_000_000)
        writer.write_eof()
        assert len(await reader.read(-1)) == 1_000_000
        writer.close()
    with socket.socket() as late:
        assert late.connect_ex((local.host, local.port)) != 0
