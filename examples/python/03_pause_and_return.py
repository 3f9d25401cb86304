"""Close the lid and come back: an interpreter's variables outlive the program that made them.

The first program starts a Python interpreter in a named machine, has it compute something, suspends the machine and
ends. A second program, which knows nothing but the name, goes on with the interpreter's variables.

Usage: python 03_pause_and_return.py, with a server running (``make serve``).
"""

import subprocess
import sys
import time
import uuid

from forkyard import Sandbox

# Reads lines of code from a pipe and runs them, all in one set of variables.
INTERPRETER = """\
import contextlib, io, os

os.mkfifo("/workspace/code")
os.mkfifo("/workspace/answer")
variables = {}
while True:
    with open("/workspace/code") as code:
        source = code.read()
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(source, variables)
    with open("/workspace/answer", "w") as answer:
        answer.write(output.getvalue())
"""

ASK = 'until [ -p answer ]; do sleep 0.1; done; printf "%s" "$1" >code; cat answer'

started = time.perf_counter()


def say(text: str) -> None:
    """Prints what happens, and when."""
    print(f"{time.perf_counter() - started:6.2f} s  {text}", flush=True)


def execute(sandbox: Sandbox, code: str) -> str:
    """Has the interpreter in the machine run some code; answers what it printed."""
    return sandbox.run("sh", ["-c", ASK, "sh", code], check=True, timeout=60).stdout.strip()


def begin(name: str) -> None:
    """What the first program does."""
    sandbox = Sandbox.create(name=name)
    sandbox.write_file("/workspace/interpreter.py", INTERPRETER)
    sandbox.start("python", ["interpreter.py"])
    execute(sandbox, "primes = [n for n in range(2, 1000) if all(n % d for d in range(2, int(n**0.5) + 1))]")
    say(f"first program: {execute(sandbox, 'print(len(primes))')} primes are in a variable, in {sandbox.sandbox_id}")
    info = sandbox.suspend()
    say(f"first program: the machine is {info.status.value}, and I am done")


def go_on(name: str) -> None:
    """What the second program does, in a process of its own."""
    with Sandbox.connect(name) as sandbox:
        say(f"second program: found '{name}', which is {sandbox.status.value}")
        info = sandbox.resume()
        say(f"second program: it is {info.status.value}; its last prime is {execute(sandbox, 'print(primes[-1])')}")
    say("the machine is gone")


if len(sys.argv) > 1:
    go_on(sys.argv[1])
else:
    unique = f"thinker-{uuid.uuid4().hex[:8]}"
    begin(unique)
    subprocess.run([sys.executable, __file__, unique], check=True)
