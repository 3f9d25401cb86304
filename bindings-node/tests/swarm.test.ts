/** One job on many machines: order, isolation, retries, the report, abort. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Client, DeadlineExceeded, ImageNotFound, InvalidArgument, Sandbox, type SwarmProgress, swarm } from 'forkyard';
import { until } from './helpers.js';

const client = new Client();
let snapshotId: string;
before(async () => {
  await using base = await Sandbox.create({ image: 'python', memoryMb: 256 });
  await base.writeFile('/dev/shm/setup', 'done');
  snapshotId = (await base.checkpoint({ type: 'memory' })).snapshotId;
});
after(async () => {
  await client.deleteSnapshot(snapshotId);
});

/** The forks of the snapshot that have not ended. */
async function alive(): Promise<string[]> {
  const all = await client.list();
  const ended = ['terminated', 'failed'];
  return all.filter((it) => it.snapshotId === snapshotId && !ended.includes(it.status)).map((it) => it.sandboxId);
}

test('each task has a machine, in its place, and an error harms no other', async () => {
  const seen: SwarmProgress[] = [];
  let most = 0;
  const report = await swarm(
    async (sandbox, task: number) => {
      most = Math.max(most, (await alive()).length);
      if (task === 2) {
        throw new RangeError('two is odd here');
      }
      return `${task} ${await sandbox.readText('/dev/shm/setup')}`;
    },
    [0, 1, 2, 3, 4],
    { snapshotId, concurrency: 2, onProgress: (progress) => seen.push(progress) },
  );
  assert.deepEqual(report.results, ['0 done', '1 done', '3 done', '4 done']);
  assert.deepEqual([report.succeeded, report.failed, report.cancelled], [4, 1, 0]);
  assert.ok(most >= 1 && most <= 2, `${most} machines at once`);
  const failed = report.tasks[2];
  assert.deepEqual([failed?.status, failed?.result, failed?.attempts.length], ['failed', undefined, 1]);
  assert.ok(failed?.error instanceof RangeError);
  assert.equal(failed?.attempts[0]?.error, 'two is odd here');
  const machines = report.tasks.map((task) => task.attempts[0]?.sandboxId);
  assert.equal(new Set(machines).size, 5);
  assert.ok(report.wallMs > 0 && report.sequentialMs > 0 && report.speedup > 0 && report.efficiency > 0);
  assert.deepEqual([seen.at(-1)?.total, seen.at(-1)?.succeeded, seen.at(-1)?.failed], [5, 4, 1]);
  assert.ok(seen.every((it) => it.starting + it.running <= 2));
  assert.deepEqual(await alive(), []);
});

test('a task that failed is tried again in a new machine', async () => {
  const tries: string[] = [];
  const report = await swarm(
    (sandbox) => {
      tries.push(sandbox.sandboxId);
      if (tries.length < 3) {
        throw new Error(`not the ${tries.length}.`);
      }
      return tries.length;
    },
    ['only'],
    { snapshotId, retries: 2 },
  );
  assert.deepEqual(report.results, [3]);
  assert.equal(new Set(tries).size, 3);
  assert.equal(report.tasks[0]?.error, undefined);
  assert.deepEqual(
    report.tasks[0]?.attempts.map(({ error }) => error),
    ['not the 1.', 'not the 2.', undefined],
  );
});

test('what is refused is not asked for again', async () => {
  const report = await swarm(() => 1, ['a'], { image: 'no-such-image', retries: 5 });
  assert.equal(report.tasks[0]?.attempts.length, 1);
  assert.ok(report.tasks[0]?.error instanceof ImageNotFound);
});

test('a task that takes too long is stopped, and is told so', async () => {
  let told: unknown;
  const report = await swarm(
    async (sandbox, _task, signal) => {
      signal.addEventListener('abort', () => {
        told = signal.reason;
      });
      await sandbox.exec({ cmd: 'sleep', args: ['600'] });
    },
    ['slow'],
    { snapshotId, taskTimeoutMs: 1000 },
  );
  assert.ok(report.tasks[0]?.error instanceof DeadlineExceeded);
  assert.equal(told, report.tasks[0]?.error);
  assert.deepEqual(await alive(), []);
});

test('an aborted swarm ends its machines and says why', async () => {
  const abort = new AbortController();
  let begun = 0;
  const running = swarm(
    async (sandbox) => {
      begun += 1;
      await sandbox.exec({ cmd: 'sleep', args: ['600'] });
    },
    [1, 2, 3],
    { snapshotId, concurrency: 2, signal: abort.signal },
  );
  const rejected = assert.rejects(running, /enough/);
  await until(async () => begun > 0, 'a job begins', 60_000);
  abort.abort(new Error('enough'));
  await rejected;
  // One that was still being made is ended in the background.
  await until(async () => (await alive()).length === 0, 'all are ended');
});

test('an error in a listener ends the swarm', async () => {
  const running = swarm(() => 1, [1, 2], {
    snapshotId,
    onProgress: ({ running }) => {
      if (running > 0) {
        throw new RangeError('no more');
      }
    },
  });
  await assert.rejects(running, RangeError);
  await until(async () => (await alive()).length === 0, 'all are ended');
});

test('nothing to do is done, and what is out of range is refused', async () => {
  assert.deepEqual((await swarm(() => 1, [])).results, []);
  await assert.rejects(
    swarm(() => 1, [1], { concurrency: 0 }),
    InvalidArgument,
  );
  await assert.rejects(
    swarm(() => 1, [1], { retries: -1 }),
    /retries must be a whole number/,
  );
  await assert.rejects(
    swarm(() => 1, [1], { taskTimeoutMs: 0 }),
    /taskTimeoutMs/,
  );
});
