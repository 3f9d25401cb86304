"""The blocking executor of the conformance suite: each call has a thread, and one that is to be cancelled the main one.

That is where Ctrl-C arrives, which is how a call that blocks is cancelled.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

import surface

METHODS = surface.note(is_async=False)

import _sync_calls  # noqa: E402 - after the methods that they call
import _sync_events  # noqa: E402, F401 - enters its calls into the table
import _sync_guest  # noqa: E402, F401 - likewise
import _sync_reach  # noqa: E402, F401 - likewise
import lines  # noqa: E402


class Main:
    """The main thread's calls, one after another."""

    def __init__(self) -> None:
        self.waiting: queue.Queue[lines.Order | None] = queue.Queue()
        self.cancelled: set[int] = set()
        self.current: int | None = None

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """What Ctrl-C does: it reaches only a call that is to be cancelled."""
        if self.current in self.cancelled:
            self.current = None
            raise KeyboardInterrupt

    def cancel(self, number: int) -> None:
        """Has a call interrupted."""
        self.cancelled.add(number)
        os.kill(os.getpid(), signal.SIGINT)

    def run(self, context: _sync_calls.Context) -> None:
        """Makes the calls until there are no more."""
        signal.signal(signal.SIGINT, self.interrupt)
        while (order := self.waiting.get()) is not None:
            self.current = order["id"]
            perform(context, order)
            self.current = None


def main() -> None:
    """Does what it is told until nothing more comes."""
    context, cancellable = _sync_calls.Context(), Main()

    def listen() -> None:
        with ThreadPoolExecutor(max_workers=256) as pool:
            for order in lines.orders():
                if order.get("cancel"):
                    cancellable.cancel(order["id"])
                elif order.get("cancellable"):
                    cancellable.waiting.put(order)
                else:
                    pool.submit(perform, context, order)
        cancellable.waiting.put(None)

    threading.Thread(target=listen, daemon=True).start()
    cancellable.run(context)


def perform(context: _sync_calls.Context, order: lines.Order) -> None:
    """Makes one call."""
    if order["call"] == "surface":
        lines.answer(order, {"calls": sorted(_sync_calls.CALLS), "methods": METHODS, "exempt": {}}, [])
        return
    with surface.watched() as via:
        try:
            on = context.objects.get(order.get("on"))
            value = _sync_calls.CALLS[order["call"]](context, on, order["args"])
        except KeyboardInterrupt:
            lines.send({"id": order["id"], "via": via, "error": lines.CANCELLED})
            return
        except Exception as error:  # noqa: BLE001 - all that a call may raise is told
            value = error
    lines.answer(order, value, via)


main()
