/**
 * Five agents review one project at once: setup is paid once, frozen with its memory, and forked for each agent.
 *
 * A base machine gets the project and starts the reviewer, which imports its tools and waits. A snapshot with its memory is
 * taken, and five forks of it each review from one perspective. Run one by one, all at once, and once more with the setup
 * done in every agent, for comparison.
 *
 * Usage: 02_swarm [FOLDER [AGENTS]], with a server running (`make serve`) that has the image 'code-review'. The folder holds
 * reviewer.py and the project. Default: examples/python/code_review, as seen from the repository; five agents.
 */

import { readdir, readFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { ForkyardError, Sandbox, type SwarmProgress, type SwarmReport, swarm } from 'forkyard';

const [, , FOLDER = 'examples/python/code_review', AGENTS = '5'] = process.argv;
const PERSPECTIVES = ['security', 'complexity', 'docstrings', 'tests', 'structure'].slice(0, Number(AGENTS));
const COUNT = PERSPECTIVES.length;
const MACHINE = { image: 'code-review', memoryMb: 384 };

/** Speaks to the reviewer that waits in the machine. */
const ASK = 'until [ -p ask ]; do sleep 0.1; done; printf "%s" "$PERSPECTIVE" >ask; cat answer';

interface Review {
  perspective: string;
  score: number;
  findings: { file: string; line: number; message: string; cost: number }[];
}

const started = performance.now();

/** Prints what happens, and when. */
function say(text: string): void {
  console.log(`${((performance.now() - started) / 1000).toFixed(2).padStart(6)} s  ${text}`);
}

/** Has the reviewer in a machine look at the project; answers what it says in its one line of JSON. */
async function ask<T = Review>(sandbox: Sandbox, perspective: string): Promise<T> {
  const { stdout } = await sandbox.exec({
    cmd: 'sh',
    args: ['-c', ASK],
    env: { PERSPECTIVE: perspective },
    timeoutMs: 120_000,
    check: true,
  });
  return JSON.parse(stdout) as T;
}

/** Brings the project and the reviewer into a machine, and proves that the reviewer has its tools. */
async function setUp(sandbox: Sandbox): Promise<Record<string, string>> {
  const all = await readdir(FOLDER, { recursive: true });
  for (const path of all.filter((name) => name.endsWith('.py'))) {
    await sandbox.writeFile(`/workspace/${path}`, await readFile(join(FOLDER, path)));
  }
  await sandbox.start({ cmd: 'python', args: ['reviewer.py'] });
  return await ask(sandbox, 'tools');
}

/** What each agent has to do without a snapshot. */
async function setUpAndAsk(sandbox: Sandbox, perspective: string): Promise<Review> {
  await setUp(sandbox);
  return await ask(sandbox, perspective);
}

/** Says so whenever another agent is done. */
function progressShown(): (progress: SwarmProgress) => void {
  let said = 0;
  return ({ succeeded, failed, total }) => {
    if (succeeded + failed > said) {
      said = succeeded + failed;
      say(`  ${said} of ${total} agents are done`);
    }
  };
}

/** Each perspective's score, and its worst findings. */
function showReviews({ tasks }: SwarmReport<Review>): void {
  console.log();
  for (const { index, result, error } of tasks) {
    const perspective = (PERSPECTIVES[index] ?? '').padEnd(12);
    if (result === undefined) {
      console.log(`  ${perspective} failed: ${error}`);
      continue;
    }
    console.log(`  ${perspective} ${result.score.toFixed(1).padStart(4)} of 10, ${result.findings.length} findings`);
    for (const { file, line, message } of result.findings.slice(0, 3)) {
      console.log(`${''.padEnd(16)}${file}:${line}  ${message.slice(0, 80)}`);
    }
  }
}

/** What each way took; the first, which runs the agents one by one, is what the others are compared with. */
function showTimes(alone: number, rows: [name: string, concurrency: number, wallMs: number][]): void {
  const on = `on ${availableParallelism()} processors`;
  console.log(`\n  ${on.padEnd(34)} ${'wall'.padStart(9)}  speed-up  efficiency`);
  for (const [name, concurrency, wallMs] of rows) {
    const wall = (wallMs / 1000).toFixed(2).padStart(7);
    const speedup = alone / wallMs;
    const efficiency = `${Math.round((speedup / concurrency) * 100)}%`.padStart(10);
    console.log(`  ${name.padEnd(34)} ${wall} s  ${speedup.toFixed(2).padStart(8)}  ${efficiency}`);
  }
}

/** What the lead concludes. */
function summary(reviews: Review[]): string {
  const mean = reviews.reduce((sum, { score }) => sum + score, 0) / reviews.length;
  const worst = reviews.reduce((a, b) => (b.score < a.score ? b : a));
  const first = reviews.flatMap(({ findings }) => findings).reduce((a, b) => (b.cost > a.cost ? b : a));
  const verdict = mean >= 8 ? 'ready to merge' : 'not ready to merge';
  return (
    `${mean.toFixed(1)} of 10 over ${reviews.length} perspectives: ${verdict}. Weakest is ${worst.perspective} ` +
    `(${worst.score}). Begin with ${first.file}:${first.line}: ${first.message}`
  );
}

/** A machine with the project and a reviewer that has its tools loaded, frozen. */
async function frozenBase(): Promise<string> {
  await using base = await Sandbox.create(MACHINE);
  const began = performance.now();
  const tools = Object.entries(await setUp(base)).map(([name, version]) => `${name} ${version}`);
  say(`it has ${tools.join(', ')} (${((performance.now() - began) / 1000).toFixed(1)} s)`);
  const snapshot = await base.checkpoint({ type: 'memory', name: 'code-review-base' });
  const size = Math.round(snapshot.size / 2 ** 20);
  say(`frozen as ${snapshot.snapshotId}: ${size} MiB on disk; it stood still for ${snapshot.pauseMs} ms`);
  return snapshot.snapshotId;
}

async function main(): Promise<void> {
  if (COUNT === 0) {
    throw new Error(`AGENTS must be 1 to 5, not ${AGENTS}`);
  }
  say('the base: a machine with the project and a reviewer that has its tools loaded');
  const snapshotId = await frozenBase();
  let oneByOne: SwarmReport<Review>;
  let atOnce: SwarmReport<Review>;
  try {
    say(`${COUNT} forks, one by one`);
    const onProgress = progressShown();
    oneByOne = await swarm(ask<Review>, PERSPECTIVES, { snapshotId, concurrency: 1, onProgress });
    say(`${COUNT} forks, all at once`);
    atOnce = await swarm(ask<Review>, PERSPECTIVES, { snapshotId, concurrency: COUNT, onProgress: progressShown() });
  } finally {
    await Sandbox.deleteSnapshot(snapshotId);
  }
  say(`for comparison, ${COUNT} machines that each do the setup`);
  const options = { ...MACHINE, concurrency: COUNT, onProgress: progressShown() };
  const withSetup = await swarm(setUpAndAsk, PERSPECTIVES, options);

  showReviews(atOnce);
  showTimes(oneByOne.wallMs, [
    ['forks, one by one', 1, oneByOne.wallMs],
    ['forks, all at once', COUNT, atOnce.wallMs],
    ['setup in every agent, all at once', COUNT, withSetup.wallMs],
  ]);
  if (oneByOne.failed + atOnce.failed + withSetup.failed > 0) {
    throw new Error('not all agents succeeded');
  }
  console.log(`\n  the lead: ${summary(atOnce.results)}`);
}

try {
  await main();
} catch (error) {
  if (!(error instanceof ForkyardError)) {
    throw error;
  }
  console.error(`${error.name}: ${error.message}`);
  process.exitCode = 1;
}
