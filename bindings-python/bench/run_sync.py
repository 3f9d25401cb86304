"""Runs `true` 50 times, blocking, on the machine that the argument names; prints milliseconds as JSON."""

import json
import sys
import time

from forkyard import Sandbox

sandbox = Sandbox.connect(sys.argv[1])
samples = []
for _ in range(55):
    started = time.perf_counter()
    sandbox.run("true")
    samples.append((time.perf_counter() - started) * 1000)
print(json.dumps(samples[5:]))
