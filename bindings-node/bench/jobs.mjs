/** What `make bench` has Node.js do: a job on a machine, whose samples it prints as JSON. Usage: jobs.mjs JOB SANDBOX_ID. */

import { Sandbox } from 'forkyard';

const [RUNS, FIRST_RUNS] = [50, 5];
const AT_ONCE = 1000;
const [CALLS, STEP, CALLERS] = [100_000, 10_000, 16];

const [, , job, sandboxId] = process.argv;
const sandbox = await Sandbox.connect(sandboxId);

/** Milliseconds of `true`; the first runs warm up. */
async function run() {
  const samples = [];
  for (let number = 0; number < FIRST_RUNS + RUNS; number += 1) {
    const started = performance.now();
    await sandbox.exec({ cmd: 'true' });
    samples.push(performance.now() - started);
  }
  return samples.slice(FIRST_RUNS);
}

/** Runs a second where 1,000 are under way at once. */
async function gather() {
  const all = (count) => Promise.all(Array.from({ length: count }, () => sandbox.exec({ cmd: 'true' })));
  await all(50);
  const started = performance.now();
  await all(AT_ONCE);
  return [AT_ONCE / ((performance.now() - started) / 1000)];
}

/** MiB of resident memory after each 10,000 of 100,000 calls. */
async function memory() {
  const call = async () => {
    for (let number = 0; number < STEP / CALLERS; number += 1) {
      await sandbox.info();
    }
  };
  const samples = [];
  for (let calls = 0; calls < CALLS; calls += STEP) {
    await Promise.all(Array.from({ length: CALLERS }, call));
    samples.push(process.memoryUsage.rss() / 2 ** 20);
  }
  return samples;
}

console.log(JSON.stringify(await { run, gather, memory }[job]()));
