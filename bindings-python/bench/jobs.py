"""What `make bench` has Python do: a job on a machine, whose samples it prints. Usage: jobs.py JOB SANDBOX_ID."""

import asyncio
import json
import sys
import time
from pathlib import Path

from forkyard import AsyncSandbox, Sandbox

RUNS, FIRST_RUNS = 50, 5
AT_ONCE = 1000
CALLS, STEP, CALLERS = 100_000, 10_000, 16


def run_sync(sandbox_id: str) -> list[float]:
    """Milliseconds of `true`, blocking; the first runs warm up."""
    sandbox = Sandbox.connect(sandbox_id)
    samples = []
    for _ in range(FIRST_RUNS + RUNS):
        started = time.perf_counter()
        sandbox.run("true")
        samples.append((time.perf_counter() - started) * 1000)
    return samples[FIRST_RUNS:]


async def run_async(sandbox_id: str) -> list[float]:
    """The same with asyncio."""
    sandbox = await AsyncSandbox.connect(sandbox_id)
    samples = []
    for _ in range(FIRST_RUNS + RUNS):
        started = time.perf_counter()
        await sandbox.run("true")
        samples.append((time.perf_counter() - started) * 1000)
    return samples[FIRST_RUNS:]


async def gather(sandbox_id: str) -> list[float]:
    """Runs a second where 1,000 are under way at once."""
    sandbox = await AsyncSandbox.connect(sandbox_id)
    await asyncio.gather(*(sandbox.run("true") for _ in range(50)))
    started = time.perf_counter()
    await asyncio.gather(*(sandbox.run("true") for _ in range(AT_ONCE)))
    return [AT_ONCE / (time.perf_counter() - started)]


async def memory(sandbox_id: str) -> list[float]:
    """MiB of resident memory after each 10,000 of 100,000 calls."""
    sandbox = await AsyncSandbox.connect(sandbox_id)

    async def call() -> None:
        for _ in range(STEP // CALLERS):
            await sandbox.info()

    samples = []
    for _ in range(CALLS // STEP):
        await asyncio.gather(*(call() for _ in range(CALLERS)))
        samples.append(resident())
    return samples


def resident() -> float:
    """MiB that the process holds (proc(5), `statm`, in pages of 4 KiB)."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4 / 1024


job = {"run_sync": run_sync, "run_async": run_async, "gather": gather, "memory": memory}[sys.argv[1]]
found = job(sys.argv[2])
print(json.dumps(found if isinstance(found, list) else asyncio.run(found)))
