"""What a machine may reach, and what it did reach."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True)
class NetworkPolicy:
    """What a machine may reach.

    A rule is an address or CIDR (``203.0.113.7``, ``2001:db8::/32``), a host name (``pypi.org``) or every name below a
    domain (``*.pythonhosted.org``), each with an optional port (``pypi.org:443``). Loopback, private and link-local
    addresses, the host's own and the like are never reachable, unless the server's operator opened them. Beyond that
    `allow_out` wins over `deny_out`, and that over `allow_internet_access`.

    Attributes:
        allow_internet_access: Whether what no rule names may be reached.
        allow_out: What may be reached whatever else is said.
        deny_out: What may not be reached unless `allow_out` names it.
        max_connections: Most connections at once; None for the server's limit.
        bandwidth_kbps: Kilobits a second in each direction; None for the server's limit.
    """

    allow_internet_access: bool
    allow_out: list[str]
    deny_out: list[str]
    max_connections: int | None
    bandwidth_kbps: int | None


@dataclass(frozen=True)
class NetworkCounters:
    """What went through a machine's network since the server first knew of it.

    Attributes:
        bytes_out: Payload bytes that the machine sent.
        bytes_in: Payload bytes that it got.
        connections_open: Connections that are open.
        connections_total: Connections that were opened.
        connections_refused: Connections that were refused.
        dns_queries: Queries to its resolver, the refused ones included.
        dropped_frames: Frames of the machine's that were malformed, or more than there was room for.
        dropped_events: Events that were not kept because there were too many.
    """

    bytes_out: int
    bytes_in: int
    connections_open: int
    connections_total: int
    connections_refused: int
    dns_queries: int
    dropped_frames: int
    dropped_events: int


class NetworkLink(str, Enum):
    """Whether a machine's network is there."""

    UP = "up"
    """It is."""
    DOWN = "down"
    """Its policy allows nothing, or its gateway is being started again."""


@dataclass(frozen=True)
class NetworkInfo:
    """A machine's network.

    Attributes:
        policy: What the machine may reach.
        counters: What went through.
        link: Whether its network is there.
    """

    policy: NetworkPolicy
    counters: NetworkCounters
    link: NetworkLink


class NetworkEventKind(str, Enum):
    """What happened."""

    CONNECTION_OPENED = "connection_opened"
    """A connection was opened."""
    CONNECTION_ENDED = "connection_ended"
    """It ended; the event has its bytes."""
    CONNECTION_REFUSED = "connection_refused"
    """The policy, a limit or an address that is never reachable stood against it."""
    DNS_REFUSED = "dns_refused"
    """A name was not resolved, or its addresses were held back."""
    GATEWAY_RESTARTED = "gateway_restarted"
    """The machine's gateway was started again: connections of before are gone."""


@dataclass(frozen=True)
class NetworkEvent:
    """One thing that happened on a machine's network.

    Attributes:
        at: When, in seconds since 1970.
        kind: What.
        protocol: ``tcp``, ``udp``, ``icmp`` or ``dns``; None where it is of no connection.
        name: The other end's name, as far as it is known.
        address: Its address.
        port: Its port.
        bytes_out: Payload bytes that the machine sent until then.
        bytes_in: Payload bytes that it got until then.
        verdict: ``allowed`` or ``refused``.
        rule: What decided: a rule as it was given, ``default``, or a reason such as ``private addresses``.
    """

    at: float
    kind: NetworkEventKind
    protocol: str | None
    name: str | None
    address: str | None
    port: int | None
    bytes_out: int
    bytes_in: int
    verdict: str | None
    rule: str | None


@dataclass(frozen=True)
class NetworkEvents:
    """A machine's network events, oldest first.

    Attributes:
        events: The events.
        cursor: Given to the next call, it yields what came after these; None where there never was an event.
    """

    events: list[NetworkEvent]
    cursor: str | None
