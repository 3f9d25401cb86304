/** Machines found by their name and marks, and how long they live while nobody calls. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Client, ImageNotFound, InvalidArgument, Sandbox, SandboxLost, type SandboxStatus } from 'forkyard';
import { until } from './helpers.js';

const MACHINE = { image: 'python', memoryMb: 256 };
const client = new Client();
const unique = (word: string) => `${word}-${process.pid}-${Date.now()}`;

test('a list is filtered, and fetched as it is read', async () => {
  const team = unique('team');
  await using first = await Sandbox.create({ ...MACHINE, labels: { team, place: 'a', odd: 'a:b&ü' } });
  await using second = await Sandbox.create({ ...MACHINE, labels: { team, place: 'b', odd: 'a:b&ü' } });
  const ids = async (filter: Parameters<Client['list']>[0]) =>
    (await client.list(filter)).map(({ sandboxId }) => sandboxId);
  assert.deepEqual(await ids({ labels: { team } }), [second.sandboxId, first.sandboxId]);
  assert.deepEqual(await ids({ labels: { team, place: 'a' } }), [first.sandboxId]);
  assert.deepEqual(await ids({ labels: { team }, image: 'base' }), []);
  const { imageDigest } = await first.info();
  const running = { labels: { team }, image: imageDigest, status: 'running' } as const;
  assert.deepEqual(await ids(running), [second.sandboxId, first.sandboxId]);
  const read: string[] = [];
  for await (const { sandboxId } of client.iter({ labels: { odd: 'a:b&ü', team }, pageSize: 1 })) {
    read.push(sandboxId);
  }
  assert.deepEqual(read, [second.sandboxId, first.sandboxId]);
  await first.destroy();
  assert.deepEqual(await ids(running), [second.sandboxId]);
  await assert.rejects(ids({ labels: { 'a:b': 'c' } }), /a label's key/);
  await assert.rejects(ids({ status: 'asleep' as SandboxStatus }), InvalidArgument);
  await assert.rejects(client.iter({ pageSize: 0 }).next(), /limit/);
  await assert.rejects(client.iter({ pageSize: 1.5 }).next(), /pageSize must be a whole number/);
});

test('those who ask at once get the same machine, and later ones find it as it is', async () => {
  const name = unique('shared');
  // Each with its own connections, as a program of its own.
  const ask = () => Sandbox.getOrCreate(name, { ...MACHINE, autoResume: false, client: new Client() });
  const machines = await Promise.all(Array.from({ length: 5 }, ask));
  await using machine = machines[0] as Sandbox;
  assert.deepEqual([...new Set(machines.map(({ sandboxId }) => sandboxId))], [machine.sandboxId]);
  await machine.writeFile('/dev/shm/note', 'here');
  await machine.suspend();
  // What does not exist is not asked for: the machine does.
  const again = await Sandbox.getOrCreate(name, { image: 'no-such-image', memoryMb: 512 });
  assert.deepEqual([again.sandboxId, again.status], [machine.sandboxId, 'running']);
  assert.equal(await again.readText('/dev/shm/note'), 'here');
  assert.equal((await again.info()).memoryMb, 256);
  await machine.destroy();
  // Its name is free, and what was asked for counts.
  await assert.rejects(Sandbox.getOrCreate(name, { image: 'no-such-image' }), ImageNotFound);
  await assert.rejects(Sandbox.getOrCreate('no/name'), InvalidArgument);
});

test('an idle time-out is changed while the machine lives', async () => {
  const brief = await Sandbox.create(MACHINE);
  assert.equal((await brief.extendTimeout(900)).timeoutMs, 1000);
  const isGone = async () => (await client.get(brief.sandboxId)).status === 'terminated';
  await until(isGone, 'it ends', 30_000);
  await assert.rejects(brief.extendTimeout(600_000), SandboxLost);
  await using machine = await Sandbox.create({ ...MACHINE, name: unique('long') });
  await assert.rejects(machine.extendTimeout(0), /timeoutMs must be a number of milliseconds above 0/);
  await assert.rejects(machine.extendTimeout(1e12), /timeout_secs must be between 1 and 2592000/);
  await machine.suspend();
  assert.equal((await machine.extendTimeout(1_200_000)).status, 'suspended');
  assert.equal((await machine.resume()).timeoutMs, 1_200_000);
});
