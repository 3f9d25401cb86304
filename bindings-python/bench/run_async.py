"""Runs `true` 50 times with asyncio on the machine that the argument names; prints milliseconds as JSON."""

import asyncio
import json
import sys
import time

from forkyard import AsyncSandbox


async def main() -> None:
    """Measures."""
    sandbox = await AsyncSandbox.connect(sys.argv[1])
    samples = []
    for _ in range(55):
        started = time.perf_counter()
        await sandbox.run("true")
        samples.append((time.perf_counter() - started) * 1000)
    print(json.dumps(samples[5:]))


asyncio.run(main())
