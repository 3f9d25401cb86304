"""1,000 concurrent runs on the machine that the argument names; prints calls a second as JSON."""

import asyncio
import json
import sys
import time

from forkyard import AsyncSandbox

CALLS = 1000


async def main() -> None:
    """Measures once."""
    sandbox = await AsyncSandbox.connect(sys.argv[1])
    await asyncio.gather(*(sandbox.run("true") for _ in range(50)))
    started = time.perf_counter()
    await asyncio.gather(*(sandbox.run("true") for _ in range(CALLS)))
    print(json.dumps([CALLS / (time.perf_counter() - started)]))


asyncio.run(main())
