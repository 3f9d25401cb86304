"""Folders there and back, as Python says it. What a hostile stream can do is tested with the code that reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from forkyard import AsyncSandbox, ForkyardError, InvalidArgument, NotFound, Sandbox, TreeSummary


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a bit of everything."""
    folder = tmp_path / "project"
    (folder / "src").mkdir(parents=True)
    (folder / "src/é\n").write_bytes(b"\xff" * 100_000)
    (folder / "tool").write_text("#!/bin/sh\necho works\n")
    (folder / "tool").chmod(0o750)
    (folder / "link").symlink_to("src")
    return folder


def test_a_folder_comes_back_as_it_went(sandbox: Sandbox, project: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    sent = sandbox.upload_dir(project, "/workspace/tree/project", on_progress=seen.append)
    assert sent == TreeSummary(files=2, folders=2, links=1, bytes=100_021, skipped=0, skipped_paths=[])
    assert seen == sorted(seen)
    assert seen[-1] > 100_021
    ran = sandbox.run("sh", ["-c", "./tool; stat -c %U:%a tool; ln -s /etc out"], cwd="/workspace/tree/project")
    assert ran.stdout == "works\nagent:750\n"
    copy = tmp_path / "copy"
    assert sandbox.download_dir("/workspace/tree/project", copy).skipped_paths == ["out"]
    assert (copy / "link/é\n").read_bytes() == b"\xff" * 100_000
    assert (copy / "tool").stat().st_mode & 0o777 == 0o750
    assert sorted(path.name for path in copy.iterdir()) == ["link", "src", "tool"]
    sandbox.remove("/workspace/tree", recursive=True)


async def test_what_cannot_be_moved_is_named(sandbox: Sandbox, project: Path, tmp_path: Path) -> None:
    machine = await AsyncSandbox.connect(sandbox.sandbox_id)
    with pytest.raises(NotFound, match="/workspace/none: no such file"):
        await machine.download_dir("/workspace/none", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(NotFound, match=r"the local file .*/none: "):
        await machine.upload_dir(project / "none", "/workspace/x")
    with pytest.raises(InvalidArgument, match="send it with upload_dir"):
        await machine.upload(project, "/workspace/x")
    # A file is where a folder is to be.
    await machine.write_file("/workspace/taken", "")
    with pytest.raises(ForkyardError, match="/workspace/taken: not a directory"):
        await machine.upload_dir(project, "/workspace/taken")
    await machine.remove("/workspace/taken")
