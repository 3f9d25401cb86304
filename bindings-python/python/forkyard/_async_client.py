"""One server: its machines, snapshots, images and keys."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from types import TracebackType

from . import _native
from ._async_listing import AsyncSandboxListing
from ._records import (
    created_key,
    image_info,
    key_info,
    load,
    pool_info,
    retention,
    sandbox_info,
    server_info,
    snapshot_info,
)
from ._shared import (
    key_request,
    pool_spec,
    retention_policy,
    sandbox_filter,
)
from ._snapshot_types import RetentionPolicy, SnapshotInfo, WhenFull
from ._types import CreatedKey, ImageInfo, KeyInfo, KeyScope, PoolInfo, SandboxInfo, SandboxStatus, ServerInfo


class AsyncSandboxClient:
    """One server and one pool of connections to it, however many machines it drives.

    Args:
        url: The server's address. Default: ``FORKYARD_URL``, else ``http://127.0.0.1:7070``.
        api_key: Default: ``FORKYARD_API_KEY``, else the file that a server on this host wrote at its first start.
        timeout: Seconds that each call may take in all, retries included. Default: 60; making a machine: 120.

    Raises:
        InvalidArgument: The address is none, or no key is found.
    """

    def __init__(self, url: str | None = None, api_key: str | None = None, *, timeout: float | None = None) -> None:
        self._native = _native.Client(url, api_key, timeout)

    async def __aenter__(self) -> AsyncSandboxClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def list(
        self,
        *,
        name: str | None = None,
        status: SandboxStatus | None = None,
        image: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> builtins.list[SandboxInfo]:
        """The machines of the project that fit all that is said, newest first; without a word all, ended ones included.

        Args:
            name: Only those of this name.
            status: Only those in this state.
            image: Only those of this image: its tag as it was asked for, or its digest.
            labels: Only those with all of these labels.

        Raises:
            InvalidArgument: No label can be as asked.
        """
        request = sandbox_filter(name, status, image, labels, page_size=1000)
        return [sandbox_info(value) for value in load(await self._native.list(request))]

    def iter(
        self,
        *,
        name: str | None = None,
        status: SandboxStatus | None = None,
        image: str | None = None,
        labels: Mapping[str, str] | None = None,
        page_size: int = 100,
    ) -> AsyncSandboxListing:
        """The same machines, fetched as they are read: a page of `page_size` (1 to 1,000) at a time."""
        return AsyncSandboxListing(self._native.listing(sandbox_filter(name, status, image, labels, page_size)))

    async def get(self, sandbox_id: str) -> SandboxInfo:
        """A machine's record.

        Raises:
            SandboxNotFound: There is none of this id in the project.
        """
        return sandbox_info(load(await self._native.get(sandbox_id)))

    async def terminate(self, sandbox_id: str) -> SandboxInfo:
        """Ends a machine and waits for its end; ending one that has ended answers how it ended."""
        return sandbox_info(load(await self._native.terminate(sandbox_id)))

    async def snapshots(self) -> builtins.list[SnapshotInfo]:
        """All snapshots of the project, newest first."""
        return [snapshot_info(value) for value in load(await self._native.snapshots())]

    async def snapshot(self, snapshot_id: str) -> SnapshotInfo:
        """A snapshot's record.

        Raises:
            SnapshotNotFound: There is none of this id in the project.
        """
        return snapshot_info(load(await self._native.snapshot(snapshot_id)))

    async def delete_snapshot(self, snapshot_id: str) -> None:
        """Deletes a snapshot; machines that came from it go on.

        Raises:
            SnapshotNotFound: There is none of this id in the project.
        """
        await self._native.delete_snapshot(snapshot_id)

    async def retention(self) -> RetentionPolicy:
        """Which of its snapshots the project keeps."""
        return retention(load(await self._native.retention()))

    async def set_retention(
        self,
        *,
        budget_mb: int | None = None,
        when_full: WhenFull = WhenFull.REFUSE,
        keep_last: int | None = None,
        max_age_secs: int | None = None,
    ) -> RetentionPolicy:
        """Has the project keep others of its snapshots; what it no longer keeps is deleted at once.

        Snapshots made with ``retain=True`` are never deleted by it; they count in the budget.

        Args:
            budget_mb: MiB on disk that the snapshots may take in all. Default: as much as the host has.
            when_full: What becomes of a snapshot that the budget has no room for.
            keep_last: How many are kept; the oldest beyond it are deleted. Default: all.
            max_age_secs: Seconds after which one is deleted. Default: never.

        Raises:
            InvalidArgument: A value is out of range.
        """
        policy = retention_policy(budget_mb, when_full, keep_last, max_age_secs)
        return retention(load(await self._native.set_retention(policy)))

    async def create_pool(
        self,
        image: str | None = None,
        *,
        snapshot_id: str | None = None,
        cpus: float | None = None,
        memory_mb: int | None = None,
        min_ready: int = 1,
        max: int | None = None,  # noqa: A002
    ) -> PoolInfo:
        """Has machines of one kind kept ready: `AsyncSandbox.create` hands one out where it asks for such a machine.

        Args:
            image: An image's tag or digest. Default: ``python``.
            snapshot_id: A snapshot to go on from instead of an image.
            cpus: Virtual CPUs of each, as in `AsyncSandbox.create`.
            memory_mb: Memory of each in MiB, as in `AsyncSandbox.create`.
            min_ready: Machines that are kept ready, 1 to 1,000; they count among the key's machines.
            max: Most machines of the pool at once, claimed ones included. Beyond it none is made ready, and machines
                are made as without a pool. Default: no limit but the key's.

        Raises:
            InvalidArgument: A value is out of range.
            ImageNotFound: The server has no such image.
            SnapshotNotFound: The project has no such snapshot.
            QuotaExceeded: The key may not have so many machines.
        """
        spec = pool_spec(image, snapshot_id, cpus, memory_mb, min_ready, max)
        return pool_info(load(await self._native.create_pool(spec)))

    async def pool(self, pool_id: str) -> PoolInfo:
        """A pool, with its machines counted.

        Raises:
            PoolNotFound: There is none of this id in the project.
        """
        return pool_info(load(await self._native.pool(pool_id)))

    async def pools(self) -> builtins.list[PoolInfo]:
        """All pools of the project, newest first."""
        return [pool_info(value) for value in load(await self._native.pools())]

    async def change_pool(
        self,
        pool_id: str,
        image: str | None = None,
        *,
        snapshot_id: str | None = None,
        cpus: float | None = None,
        memory_mb: int | None = None,
        min_ready: int = 1,
        max: int | None = None,  # noqa: A002
    ) -> PoolInfo:
        """Has a pool keep something else, as `create_pool` says it; those of another kind that wait in it are ended."""
        spec = pool_spec(image, snapshot_id, cpus, memory_mb, min_ready, max)
        return pool_info(load(await self._native.change_pool(pool_id, spec)))

    async def delete_pool(self, pool_id: str) -> None:
        """Deletes a pool and ends the machines that wait in it; those that were claimed go on.

        Raises:
            PoolNotFound: There is none of this id in the project.
        """
        await self._native.delete_pool(pool_id)

    async def images(self) -> builtins.list[ImageInfo]:
        """The server's images."""
        return [image_info(value) for value in load(await self._native.images())]

    async def server_info(self) -> ServerInfo:
        """The server's version, accelerator and room."""
        return server_info(load(await self._native.server_info()))

    async def create_key(
        self,
        *,
        project: str | None = None,
        scope: KeyScope = KeyScope.SANDBOXES,
        description: str = "",
        max_sandboxes: int = 8,
        requests_per_second: int = 1000,
    ) -> CreatedKey:
        """Makes an API key; its secret is shown this once. Needs a key of scope ``admin``.

        Args:
            project: The project it sees. Default: the caller's.
            scope: What it may do.
            description: What it is for, at most 128 bytes.
            max_sandboxes: Machines it may have alive at once.
            requests_per_second: Requests a second it may make on average.
        """
        return created_key(
            load(
                await self._native.create_key(
                    key_request(project, scope, description, max_sandboxes, requests_per_second)
                )
            )
        )

    async def list_keys(self) -> builtins.list[KeyInfo]:
        """The server's API keys, without their secrets. Needs a key of scope ``admin``."""
        return [key_info(value) for value in load(await self._native.list_keys())]

    async def revoke_key(self, key_id: str) -> None:
        """Revokes an API key at once; machines made with it go on. Needs a key of scope ``admin``."""
        await self._native.revoke_key(key_id)
