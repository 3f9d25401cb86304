/** What is Node's own: its event loop, its two kinds of modules, its workers, its end. */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { after, before, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { Client, Sandbox } from 'forkyard';
import { ended, node, PACKAGE, runs, until } from './helpers.js';

const client = new Client();
let sandbox: Sandbox;
before(async () => {
  sandbox = await Sandbox.create({ image: 'python', memoryMb: 256 });
});
after(async () => {
  await sandbox.destroy();
});

test('50 commands at once, and the loop goes on', { timeout: 300_000 }, async () => {
  const delay = monitorEventLoopDelay({ resolution: 5 });
  let ticks = 0;
  const ticking = setInterval(() => {
    ticks += 1;
  }, 20);
  delay.enable();
  const began = performance.now();
  const results = await Promise.all(
    Array.from({ length: 50 }, (_, index) => sandbox.exec({ cmd: 'echo', args: [String(index)] })),
  );
  const took = performance.now() - began;
  delay.disable();
  clearInterval(ticking);
  assert.deepEqual(
    results.map(({ stdout }) => stdout),
    results.map((_, index) => `${index}\n`),
  );
  // Generous: others may use the processors. A call that blocked the loop would hold it for all of the time.
  const longest = delay.max / 1e6;
  assert.ok(longest < Math.max(1000, took / 4), `the loop stood for ${longest} ms of ${took} ms`);
  assert.ok(ticks > 3, `a timer came ${ticks} times in ${took} ms`);
});

test('both kinds of modules work, and know the same server', async () => {
  const body = "console.log(typeof swarm, (await Sandbox.connect(ID)).status, new NotFound('x').name);";
  const programs = [
    ['--input-type=module', `import { NotFound, Sandbox, swarm } from 'forkyard'; const ID = process.argv[1]; ${body}`],
    [
      '--input-type=commonjs',
      `const { NotFound, Sandbox, swarm } = require('forkyard'); const ID = process.argv[1]; (async () => { ${body} })();`,
    ],
  ];
  for (const [kind = '', program = ''] of programs) {
    const done = await node([kind, '-e', program, sandbox.sandboxId]);
    assert.deepEqual([done.code, done.stdout, done.stderr], [0, 'function running NotFound\n', '']);
  }
});

test('a program with open machines and processes ends when nothing is awaited', async () => {
  const program = `
    import { Sandbox } from 'forkyard';
    globalThis.machine = await Sandbox.create({ image: 'python', memoryMb: 256 });
    globalThis.process_ = await machine.start({ cmd: 'sleep', args: ['600'] });
    console.log(machine.sandboxId);
  `;
  const done = await node(['--input-type=module', '-e', program], 120_000);
  assert.deepEqual([done.code, done.signal, done.stderr], [0, null, '']);
  const left = await client.get(done.stdout.trim());
  assert.equal(left.status, 'running');
  await client.destroy(left.sandboxId);
});

test('a transfer that never began keeps no program alive', async () => {
  const program = `
    import { Sandbox } from 'forkyard';
    const machine = await Sandbox.connect(process.argv[1]);
    const onProgress = () => {};
    const aborted = machine.upload('/etc/hostname', '/workspace/x', { onProgress, signal: AbortSignal.abort() });
    const misfit = machine.download(17, '/tmp/x', { onProgress });
    const told = await Promise.allSettled([aborted, misfit]);
    console.log(told.map(({ reason }) => reason.name).join());
  `;
  const done = await node(['--input-type=module', '-e', program, sandbox.sandboxId], 30_000);
  assert.deepEqual([done.code, done.signal, done.stdout, done.stderr], [0, null, 'AbortError,InvalidArgument\n', '']);
});

test('what is awaited keeps the program alive', async () => {
  const program = `
    import { Sandbox } from 'forkyard';
    const machine = await Sandbox.connect(process.argv[1]);
    machine.exec({ cmd: 'sh', args: ['-c', 'sleep 1; echo awake'] }).then(({ stdout }) => console.log(stdout.trim()));
  `;
  const done = await node(['--input-type=module', '-e', program, sandbox.sandboxId]);
  assert.deepEqual([done.code, done.stdout], [0, 'awake\n']);
});

test('an abort that ends the program still kills, and an exit amid calls is clean', async () => {
  const program = `
    import { Sandbox } from 'forkyard';
    const machine = await Sandbox.connect(process.argv[1]);
    const abort = new AbortController();
    process.on('SIGTERM', () => { abort.abort(); });
    for (let i = 0; i < 20; i++) machine.exec({ cmd: 'sleep', args: ['6661'] });
    const running = machine.exec({ cmd: 'sleep', args: ['6662'], signal: abort.signal });
    console.log('running');
    await running.catch(() => process.exit(7));
  `;
  const child = spawn(process.execPath, ['--input-type=module', '-e', program, sandbox.sandboxId], { cwd: PACKAGE });
  const done = ended(child);
  await until(() => runs(sandbox, 'sleep 6662'), 'it runs');
  child.kill('SIGTERM');
  const { code, signal, stderr } = await done;
  assert.deepEqual([code, signal, stderr], [7, null, '']);
  await until(async () => !(await runs(sandbox, 'sleep 6662')), 'it was killed');
  await sandbox.exec({ cmd: 'pkill', args: ['-f', 'sleep 6661'] });
});

test('a worker has the package for itself, and may end amid a call', async () => {
  const program = `
    import { parentPort, workerData } from 'node:worker_threads';
    import { Sandbox } from 'forkyard';
    const machine = await Sandbox.connect(workerData);
    const { stdout } = await machine.exec({ cmd: 'echo', args: ['from a worker'] });
    machine.exec({ cmd: 'sleep', args: ['30'] });
    parentPort.postMessage(stdout);
  `;
  const url = new URL(
    `data:text/javascript,${encodeURIComponent(program.replace("'forkyard'", JSON.stringify(import.meta.resolve('forkyard'))))}`,
  );
  const worker = new Worker(url, { workerData: sandbox.sandboxId });
  const [said] = await Promise.race([
    new Promise<[string]>((resolve) => worker.once('message', (text: string) => resolve([text]))),
    new Promise<never>((_, reject) => worker.once('error', reject)),
  ]);
  assert.equal(said, 'from a worker\n');
  await worker.terminate();
  assert.equal((await sandbox.exec({ cmd: 'echo', args: ['still here'] })).stdout, 'still here\n');
});
