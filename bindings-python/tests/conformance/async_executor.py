"""The asyncio executor of the conformance suite: makes the calls that the driver asks for, each as a task."""

from __future__ import annotations

import asyncio
import threading

import surface

METHODS = surface.note(is_async=True)

import _async_calls  # noqa: E402 - after the methods that they call
import _async_events  # noqa: E402, F401 - enters its calls into the table
import _async_guest  # noqa: E402, F401 - likewise
import _async_reach  # noqa: E402, F401 - likewise
import lines  # noqa: E402


async def main() -> None:
    """Does what it is told until nothing more comes."""
    context = _async_calls.Context()
    tasks: dict[int, asyncio.Task[None]] = {}
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[lines.Order | None] = asyncio.Queue()

    def listen() -> None:
        for order in lines.orders():
            loop.call_soon_threadsafe(queue.put_nowait, order)
        loop.call_soon_threadsafe(queue.put_nowait, None)

    threading.Thread(target=listen, daemon=True).start()
    while (order := await queue.get()) is not None:
        if order.get("cancel"):
            task = tasks.get(order["id"])
            if task is not None:
                task.cancel()
            continue
        task = asyncio.create_task(perform(context, order))
        tasks[order["id"]] = task
        task.add_done_callback(lambda _, number=order["id"]: tasks.pop(number))


async def perform(context: _async_calls.Context, order: lines.Order) -> None:
    """Makes one call."""
    if order["call"] == "surface":
        lines.answer(order, {"calls": sorted(_async_calls.CALLS), "methods": METHODS, "exempt": {}}, [])
        return
    with surface.watched() as via:
        try:
            on = context.objects.get(order.get("on"))
            value = await _async_calls.CALLS[order["call"]](context, on, order["args"])
        except asyncio.CancelledError:
            lines.send({"id": order["id"], "via": via, "error": lines.CANCELLED})
            raise
        except Exception as error:  # noqa: BLE001 - all that a call may raise is told
            value = error
    lines.answer(order, value, via)


asyncio.run(main())
