"""What machines may reach, as Python says it. What they do reach is tested with the server."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from forkyard import (
    AsyncSandbox,
    InvalidArgument,
    NetworkCounters,
    NetworkEventKind,
    NetworkLink,
    NetworkPolicy,
    Sandbox,
    SandboxClient,
    swarm_sync,
)


@pytest.fixture(scope="module")
def guided(client: SandboxClient) -> Iterator[Sandbox]:
    """A machine that may reach one host."""
    with Sandbox.create(
        "base",
        client=client,
        allow_out=["one.example:443"],
        deny_out=["*.example"],
        max_connections=7,
        bandwidth_kbps=800,
    ) as machine:
        yield machine


def test_a_policy_comes_back_as_it_was_given(guided: Sandbox) -> None:
    info = guided.network()
    assert info.policy == NetworkPolicy(
        allow_internet_access=False,
        allow_out=["one.example:443"],
        deny_out=["*.example"],
        max_connections=7,
        bandwidth_kbps=800,
    )
    assert isinstance(info.counters, NetworkCounters)
    assert info.link is NetworkLink.UP


def test_a_machine_reaches_nothing_by_default(sandbox: Sandbox) -> None:
    info = sandbox.network()
    assert info.policy == NetworkPolicy(False, [], [], None, None)
    assert info.link is NetworkLink.DOWN
    assert sandbox.network_events().events == []
    assert sandbox.network_events().cursor is None
    assert sandbox.run("curl", ["-s", "http://203.0.113.7/"]).exit_code == 7


def test_events_come_with_a_cursor(guided: Sandbox) -> None:
    assert guided.run("curl", ["-s", "http://other.example/"]).exit_code == 6
    first = guided.network_events(wait=10)
    refused = first.events[-1]
    assert refused.kind is NetworkEventKind.DNS_REFUSED
    assert (refused.name, refused.rule, refused.verdict, refused.protocol) == (
        "other.example",
        "*.example",
        "refused",
        "dns",
    )
    assert abs(refused.at - time.time()) < 60
    began = time.monotonic()
    cursor = guided.network_events().cursor
    assert guided.network_events(cursor, wait=0.5).events == []
    assert time.monotonic() - began >= 0.5
    with pytest.raises(InvalidArgument, match="no cursor"):
        guided.network_events("yesterday")
    with pytest.raises(InvalidArgument, match="wait"):
        guided.network_events(wait=-1)


def test_forks_have_the_policy_of_their_original_or_their_own(guided: Sandbox) -> None:
    (same,) = guided.fork()
    (other,) = guided.fork(allow_internet_access=False)
    with same, other:
        assert same.network().policy == guided.network().policy
        assert other.network().policy == NetworkPolicy(False, [], [], None, None)


def test_a_policy_changes_while_the_machine_runs(client: SandboxClient) -> None:
    async def change() -> None:
        async with AsyncSandbox.create("base") as machine:
            info = await machine.update_network(allow_internet_access=True)
            assert info.policy.allow_internet_access
            up = await machine.run("cat", ["/sys/class/net/eth0/operstate", "/etc/resolv.conf"])
            assert up.stdout == "up\nnameserver 10.0.2.2\n"
            info = await machine.update_network()
            assert (info.policy.allow_internet_access, info.link) == (False, NetworkLink.DOWN)
            assert (await machine.network_events()).events == []

    asyncio.run(change())


def test_what_is_wrong_is_named(client: SandboxClient, guided: Sandbox) -> None:
    with pytest.raises(InvalidArgument, match=r"allow_out\[0\]: 'https://pypi.org'"):
        Sandbox.create("base", allow_out=["https://pypi.org"])
    with pytest.raises(InvalidArgument, match="max_connections"):
        guided.update_network(max_connections=0)
    with pytest.raises(TypeError, match=r"write \['pypi.org'\]"):
        guided.update_network(allow_out="pypi.org")


def test_a_swarms_machines_have_its_policy(client: SandboxClient) -> None:
    report = swarm_sync(
        lambda machine, _: machine.network().policy.allow_out,
        [1],
        image="base",
        allow_out=["one.example"],
        client=client,
    )
    assert report.results == [["one.example"]]


@pytest.mark.timeout(300)
def test_pip_installs_through_the_gateway(client: SandboxClient) -> None:
    package = ["--no-deps", "--no-cache-dir", "--disable-pip-version-check", "six==1.17.0"]
    environment = {name: value for name, value in os.environ.items() if name != "PIP_FIND_LINKS"}
    here = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--dest", os.environ["DATA"], *package],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if here.returncode:
        pytest.skip(f"this host itself cannot reach its package index: {here.stderr.strip()}")
    with Sandbox.create("python", client=client, allow_internet_access=True) as machine:
        done = machine.run("pip", ["install", *package], timeout=200)
        assert done.ok, done.stderr
        shown = machine.run("python", ["-c", "import six; print(six.__version__)"], check=True)
        assert shown.stdout == "1.17.0\n"
        assert machine.network().counters.bytes_in > 10_000
