"""A machine's environment: what reaches its processes, its terminals and its forks, and what overrides it."""

from __future__ import annotations

import pytest

from forkyard import InvalidArgument, Sandbox, SandboxClient

SHOW = ["-c", "echo $ONE,$TWO,$HOME,$PATH"]
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.mark.timeout(180)
def test_a_machines_environment_reaches_all_that_runs_in_it(client: SandboxClient) -> None:
    env = {"ONE": "1", "TWO": "2", "HOME": "/tmp"}
    with Sandbox.create("base", memory_mb=256, env=env, client=client) as machine:
        # An account's own variables are its account's, whatever the machine's environment says.
        assert machine.run("sh", SHOW).stdout == f"1,2,/home/agent,{PATH}\n"
        assert machine.run("sh", SHOW, user="root").stdout == f"1,2,/root,{PATH}\n"
        assert machine.run("sh", SHOW, env={"TWO": "own", "HOME": "/"}).stdout == f"1,own,/,{PATH}\n"
        with machine.pty("sh", SHOW) as pty:
            assert b"".join(pty).startswith(b"1,2,/home/agent,")
        with machine.fork(env={"TWO": "twin"})[0] as twin:
            assert twin.run("sh", SHOW).stdout == f"1,twin,/home/agent,{PATH}\n"
            with twin.fork()[0] as grandchild:
                assert grandchild.run("sh", SHOW).stdout == f"1,twin,/home/agent,{PATH}\n"
        machine.suspend()
        assert machine.run("sh", SHOW).stdout == f"1,2,/home/agent,{PATH}\n"
    with pytest.raises(InvalidArgument, match="'A=B' is no name for an environment variable"):
        Sandbox.create("base", env={"A=B": ""}, client=client)
