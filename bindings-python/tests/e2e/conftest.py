"""A real server with real machines, for all tests of this folder. ``make test`` names the binary and the images."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkyard import Sandbox, SandboxClient


@contextlib.contextmanager
def serving(*more: str) -> Iterator[dict[str, str]]:
    """Runs a server, with more arguments; answers the environment that leads clients to it."""
    images = Path(os.environ["FORKYARD_TEST_IMAGES"])
    with tempfile.TemporaryDirectory(dir=images.parent, prefix="pytest-") as data:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        command = [os.environ["FORKYARD_BIN"], "serve", "--listen", address, "--data-dir", data]
        process = subprocess.Popen([*command, "--image-dir", str(images), *more], stdout=subprocess.DEVNULL)
        try:
            key_file = Path(data, "api-key")
            wait_until_served(address, process)
            key = key_file.read_text().strip()
            yield {"FORKYARD_URL": f"http://{address}", "FORKYARD_API_KEY": key, "PID": str(process.pid), "DATA": data}
        finally:
            process.terminate()
            assert process.wait(60) == 0


@pytest.fixture(scope="session")
def server() -> Iterator[dict[str, str]]:
    """The server of most tests; answers the environment that leads clients to it."""
    with serving() as environment:
        yield environment


def wait_until_served(address: str, process: subprocess.Popen[bytes]) -> None:
    """Waits until the server takes connections."""
    host, port = address.split(":")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the server does not serve")


@pytest.fixture(scope="session")
def server_pid(server: dict[str, str]) -> int:
    """The server's process."""
    return int(server["PID"])


@pytest.fixture(scope="session")
def client(server: dict[str, str]) -> SandboxClient:
    """A client of the server, which the default client finds too."""
    os.environ.update(server)
    return SandboxClient()


@pytest.fixture(scope="session")
def sandbox(client: SandboxClient) -> Iterator[Sandbox]:
    """One machine for all tests that leave it as it was."""
    with Sandbox.create(image="python", client=client) as machine:
        yield machine
