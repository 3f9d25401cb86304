/** Machines frozen, forked, suspended and put back. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Client, InvalidArgument, Sandbox, SnapshotNotFound } from 'forkyard';
import { runs, until } from './helpers.js';

const client = new Client();
let base: Sandbox;
before(async () => {
  base = await Sandbox.create({ image: 'python', memoryMb: 256, labels: { role: 'base' }, env: { KEPT: 'yes' } });
  // What is in memory alone.
  await base.writeFile('/dev/shm/setup', 'done');
  await base.writeFile('/workspace/file', 'on disk');
});
after(async () => {
  await base.destroy();
});

test('a memory snapshot goes on where the machine stood, a disk snapshot boots', async () => {
  const process = await base.start({ cmd: 'sleep', args: ['5551'] });
  const memory = await base.checkpoint({ type: 'memory', name: 'whole', labels: { a: 'b' } });
  const disk = await base.checkpoint();
  try {
    assert.deepEqual(
      [memory.checkpointType, memory.status, memory.name, memory.labels, memory.retain, memory.source],
      ['memory', 'completed', 'whole', { a: 'b' }, false, base.sandboxId],
    );
    assert.deepEqual([disk.checkpointType, disk.name], ['filesystem', undefined]);
    assert.ok(memory.size > 0 && memory.logicalSize >= memory.size && memory.pauseMs >= 0);
    const ids = (await client.snapshots()).map(({ snapshotId }) => snapshotId);
    assert.deepEqual(ids.slice(0, 2), [disk.snapshotId, memory.snapshotId]);
    {
      await using fork = await Sandbox.create({ snapshotId: memory.snapshotId });
      assert.equal((await fork.info()).snapshotId, memory.snapshotId);
      assert.equal(await fork.readText('/dev/shm/setup'), 'done');
      assert.ok(await runs(fork, 'sleep 5551'));
      await fork.process(process.id).kill();
      assert.equal((await fork.process(process.id).wait()).signal, 9);
      assert.equal((await process.info()).state, 'running');
    }
    {
      await using booted = await Sandbox.create({ snapshotId: disk.snapshotId, memoryMb: 320 });
      assert.equal(await booted.readText('/workspace/file'), 'on disk');
      assert.equal(await booted.exists('/dev/shm/setup'), false);
    }
    await assert.rejects(Sandbox.create({ snapshotId: memory.snapshotId, memoryMb: 512 }), InvalidArgument);
  } finally {
    await process.kill();
    await Sandbox.deleteSnapshot(memory.snapshotId);
    await client.deleteSnapshot(disk.snapshotId);
  }
  await assert.rejects(client.snapshot(memory.snapshotId), SnapshotNotFound);
  // @ts-expect-error: JavaScript may give anything.
  await assert.rejects(base.checkpoint({ type: 'all' }), /type must be 'filesystem' or 'memory'/);
});

test('twins have the memory and the disk, and are their own', async () => {
  const twins = await base.fork(2, { env: { WHICH: 'twin' }, labels: { role: 'twin' }, timeoutMs: 120_000 });
  try {
    assert.equal(new Set([base, ...twins].map(({ sandboxId }) => sandboxId)).size, 3);
    for (const twin of twins) {
      assert.equal(await twin.readText('/dev/shm/setup'), 'done');
      assert.equal((await twin.exec({ cmd: 'sh', args: ['-c', 'echo $KEPT $WHICH'] })).stdout, 'yes twin\n');
      const info = await twin.info();
      assert.deepEqual([info.labels, info.timeoutMs], [{ role: 'twin' }, 120_000]);
    }
    await twins[0]?.writeFile('/workspace/file', 'changed');
    assert.equal(await twins[1]?.readText('/workspace/file'), 'on disk');
    assert.equal(await base.readText('/workspace/file'), 'on disk');
  } finally {
    await Promise.all(twins.map((twin) => twin.destroy()));
  }
  await assert.rejects(base.fork(0), InvalidArgument);
  await assert.rejects(base.fork(1.5), /count must be a whole number/);
});

test('a suspended machine comes back by itself, and a named one is found again', async () => {
  const name = `node-${process.pid}-${Date.now()}`;
  await using machine = await Sandbox.create({ image: 'python', memoryMb: 256, name });
  await machine.writeFile('/dev/shm/kept', 'in memory');
  assert.equal(machine.name, name);
  assert.equal((await machine.suspend()).status, 'suspended');
  assert.equal(machine.status, 'suspended');
  assert.equal((await machine.resume()).status, 'running');
  await machine.suspend();
  const found = await Sandbox.connect(name);
  assert.deepEqual([found.sandboxId, found.status], [machine.sandboxId, 'suspended']);
  assert.equal(await found.readText('/dev/shm/kept'), 'in memory');
  assert.equal((await found.info()).status, 'running');
});

test('a machine is put back to where a snapshot stands', async () => {
  await using machine = await Sandbox.create({ image: 'python', memoryMb: 256 });
  await machine.writeFile('/workspace/state', 'before');
  const snapshot = await machine.checkpoint({ type: 'memory' });
  try {
    await machine.writeFile('/workspace/state', 'after');
    assert.equal((await machine.restore(snapshot.snapshotId)).sandboxId, machine.sandboxId);
    assert.equal(await machine.readText('/workspace/state'), 'before');
  } finally {
    await client.deleteSnapshot(snapshot.snapshotId);
  }
  await assert.rejects(machine.restore(snapshot.snapshotId), SnapshotNotFound);
});

test('an aborted fork leaves no twins', async () => {
  const mark = `node-${process.pid}-${Date.now()}`;
  const mine = async () => (await client.list()).filter(({ labels }) => labels.mark === mark);
  const abort = new AbortController();
  const rejected = assert.rejects(base.fork(2, { labels: { mark }, signal: abort.signal }), { name: 'AbortError' });
  await until(async () => (await mine()).length > 0, 'the server makes them');
  abort.abort();
  await rejected;
  await until(async () => (await mine()).every(({ status }) => status === 'terminated'), 'they are ended');
});
