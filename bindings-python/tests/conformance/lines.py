"""The driver's lines: what both executors make of them."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from typing import Any

from values import failure

Order = dict[str, Any]

CANCELLED = {"code": "cancelled", "message": "the call was cancelled"}

_writing = threading.Lock()


def orders() -> Iterator[Order]:
    """What the driver says, until it says no more."""
    for line in sys.stdin.buffer:
        yield json.loads(line)


def answer(order: Order, value: Any, via: list[str]) -> None:
    """Answers a call with what it returned or raised."""
    line: Order = {"id": order["id"], "via": via}
    if isinstance(value, BaseException):
        line["error"] = failure(value)
    else:
        line["returns"] = value
    send(line)


def send(line: Order) -> None:
    """Says a line whole, whoever else speaks."""
    data = json.dumps(line).encode() + b"\n"
    with _writing:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
