# Written by tools/unasync.py from _async_ports.py: edit that file, then run the tool.
"""Ports that programs in a machine listen on."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType

from . import _native
from ._records import listening_port, load
from ._types import ListeningPort


class Ports:
    """A machine's TCP ports. All goes through the server: the machine needs no network for it.

    Connections break off where the machine is suspended or ends, and a fork does not have its original's.
    """

    def __init__(self, native: _native.Sandbox) -> None:
        self._native = native

    def list(self) -> list[ListeningPort]:
        """The ports that something in the machine listens on, in their order."""
        return [listening_port(value) for value in load(self._native.ports().wait())]

    def wait(self, port: int, *, timeout: float = 60) -> None:
        """Waits until something listens on a port.

        Args:
            port: The port.
            timeout: Seconds to wait at most.

        Raises:
            DeadlineExceeded: Nothing did in time.
        """
        self._native.wait_port(port, timeout).wait()

    def connect(self, port: int) -> Tunnel:
        """Connects to a port.

        Raises:
            FailedPrecondition: Nothing listens there.
            NoCapacity: 512 connections to the machine's ports are open already.
        """
        return Tunnel(self._native.connect_port(port).wait())

    def forward(self, port: int, *, local_port: int = 0, host: str = "127.0.0.1") -> Forward:
        """Listens on this host and connects whoever comes to the machine's port, up to 256 at once.

        Args:
            port: The machine's port; nothing need listen there yet.
            local_port: This host's port. Default: any that is free.
            host: This host's address. Another than the default lets others in.

        Raises:
            InvalidArgument: The address is taken, or none of this host's.
        """
        return Forward(self._native.forward_port(port, host, local_port).wait())

    def preview_url(self, port: int, *, expires_secs: int = 3600) -> str:
        """An address at which whoever has it reaches the HTTP server on a port, WebSockets included, without a key.

        Args:
            port: The port; nothing need listen there yet.
            expires_secs: Seconds until it ends, at most 604,800 (7 days). Only the machine's end ends it earlier.
        """
        url: str = load(self._native.preview_url(port, expires_secs).wait())
        return url

    def url(self, port: int) -> str:
        """The address of the HTTP server on a port for those who have the API key (``Authorization: Bearer …``).

        The key is not passed on into the machine.
        """
        return self._native.port_url(port)


class Tunnel:
    """A connection to a port in a machine: iterate to get bytes as they come, until its end."""

    def __init__(self, native: _native.Tunnel) -> None:
        self._native = native

    def __enter__(self) -> Tunnel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        data = self.read()
        if not data:
            raise StopIteration
        return data

    def read(self, limit: int = 65536) -> bytes:
        """What has come, at most `limit` bytes and 64 KiB; waits for the first of it. Empty at the end."""
        return self._native.read(limit).wait()

    def write(self, data: bytes | str) -> None:
        """Sends all of it; text as UTF-8."""
        self._native.write(data.encode() if isinstance(data, str) else bytes(data)).wait()

    def close_write(self) -> None:
        """Ends what goes there. What comes from there can be read on."""
        self._native.close_write().wait()

    def close(self) -> None:
        """Ends it; a read that is under way ends too."""
        self._native.close().wait()


class Forward:
    """A port on this host that leads to one in a machine until it is closed.

    Attributes:
        host: This host's address.
        port: This host's port.
    """

    def __init__(self, native: _native.Forward) -> None:
        self._native = native
        self.host, self.port = native.address

    def __enter__(self) -> Forward:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends it and all its connections."""
        self._native.close().wait()
