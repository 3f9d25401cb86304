"""A machine of one's own: write files, run them, watch a longer command, read a result back.

Usage: python 01_first_sandbox.py [IMAGE], with a server running (``make serve``).
"""

import asyncio
import sys
import time

from forkyard import AsyncSandbox, ForkyardError

WORDS = """\
import collections, json, sys

counts = collections.Counter(sys.stdin.read().split())
json.dump(counts.most_common(3), open("/workspace/result.json", "w"))
print(sum(counts.values()), "words")
"""

COUNTDOWN = """\
import time

for number in (3, 2, 1):
    print(number, flush=True)
    time.sleep(0.3)
print("done", flush=True)
"""

started = time.perf_counter()


def say(text: str) -> None:
    """Prints what happens, and when."""
    print(f"{time.perf_counter() - started:6.2f} s  {text}", flush=True)


async def main(image: str) -> None:
    """What the machine does."""
    say(f"asking for a machine with image '{image}'")
    async with AsyncSandbox.create(image=image, memory_mb=512) as sandbox:
        say(f"{sandbox.sandbox_id} runs")
        await sandbox.write_file("/workspace/words.py", WORDS)
        await sandbox.write_file("/workspace/countdown.py", COUNTDOWN)
        say("wrote two source files")

        result = await sandbox.run("python", ["words.py"], stdin="to be or not to be that is", check=True)
        say(f"words.py says: {result.stdout.strip()} (it ran {result.duration:.2f} s)")

        def watch(text: str) -> None:
            # A line's end may come on its own.
            if text.strip():
                say(f"  countdown.py: {text.strip()!r}")

        await sandbox.run("python", ["countdown.py"], on_stdout=watch, timeout=60, check=True)
        say(f"the result, read back: {(await sandbox.read_text('/workspace/result.json')).strip()}")

        async with AsyncSandbox.create(image=image, memory_mb=512) as other:
            say(f"{other.sandbox_id} runs beside it")
            names = [entry.name for entry in await other.list_files("/workspace")]
            if names or await other.exists("/workspace/result.json"):
                raise SystemExit("the second machine sees the first one's files")
            say("it sees nothing of the first one's files")
    say("both machines are gone")


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:] or ["python"]))
    except ForkyardError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error
