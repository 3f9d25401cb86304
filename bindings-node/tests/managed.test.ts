/** Processes that a machine keeps running by itself. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AlreadyExists, InvalidArgument, type Process, type RestartWhen, Sandbox } from 'forkyard';
import { until } from './helpers.js';

const MACHINE = { image: 'python', memoryMb: 256 };

const FAILS_TWICE = 'n=$(cat /tmp/runs 2>/dev/null || echo 0); echo run $n; echo $((n + 1)) >/tmp/runs; test $n = 2';

async function output(process: Process): Promise<string> {
  let text = '';
  for await (const piece of process) {
    text += piece.text;
  }
  return text;
}

test('what fails is started again, with one id and one output', async () => {
  await using sandbox = await Sandbox.create(MACHINE);
  const restart = { backoffMs: 100 };
  const process = await sandbox.start({ cmd: 'sh', args: ['-c', FAILS_TWICE], name: 'shaky', restart });
  assert.equal((await process.wait()).exitCode, 0);
  const info = await process.info();
  assert.deepEqual([info.name, info.restarts, info.state, info.nextStartAtMs], ['shaky', 2, 'exited', undefined]);
  assert.equal(info.lastExit?.exitCode, 1);
  assert.equal(await output(sandbox.process(process.id)), 'run 0\nrun 1\nrun 2\n');

  // One that waits is told to end.
  const waits = await sandbox.start({
    cmd: 'false',
    name: 'waits',
    restart: { when: 'always', maxRestarts: 5, backoffMs: 600_000, maxBackoffMs: 600_000 },
  });
  await until(async () => (await waits.info()).nextStartAtMs !== undefined, 'it waits for its next start');
  const { state, nextStartAtMs = 0, lastExit, startedAtMs } = await waits.info();
  assert.deepEqual([state, lastExit?.exitCode], ['running', 1]);
  assert.ok(nextStartAtMs > startedAtMs + 300_000, `${nextStartAtMs} is soon`);
  await assert.rejects(sandbox.start({ cmd: 'true', name: 'waits' }), AlreadyExists);
  await waits.kill();
  assert.equal((await waits.wait()).exitCode, 1);
});

test('whether a process does its work is found out', async () => {
  await using sandbox = await Sandbox.create(MACHINE);
  const healthCheck = {
    command: ['test', '-e', '/tmp/well'],
    intervalMs: 200,
    timeoutMs: 20_000,
    retries: 1,
    startPeriodMs: 0,
  };
  const process = await sandbox.start({ cmd: 'sleep', args: ['1000'], healthCheck });
  await until(async () => (await process.info()).healthy === false, 'it is found not to');
  await sandbox.writeFile('/tmp/well', '');
  await until(async () => (await process.info()).healthy === true, 'it is found to');
  assert.equal((await process.info()).restarts, 0);
});

test('what cannot be kept running is refused', async () => {
  await using sandbox = await Sandbox.create(MACHINE);
  const refused = (options: Partial<Parameters<Sandbox['start']>[0]>, message: RegExp) =>
    assert.rejects(sandbox.start({ cmd: 'true', ...options }), (error) => {
      assert.ok(error instanceof InvalidArgument, String(error));
      assert.match(error.message, message);
      return true;
    });
  await refused({ healthCheck: {} }, /health_check needs a 'command' or a 'port'/);
  await refused({ healthCheck: { port: 80.5 } }, /healthCheck.port must be a whole number/);
  await refused({ restart: 'always', openStdin: true }, /no standard input/);
  await refused(
    { restart: 'sometimes' as RestartWhen },
    /restart must be 'never', 'on_failure' or 'always', or a policy/,
  );
  await refused({ restart: { when: 'sometimes' as RestartWhen } }, /or a policy whose values are of the right types/);
  await refused({ restart: { maxRestarts: -1 } }, /restart.maxRestarts must be a whole number/);
});
