/** What a client does besides machines: pools, retention, images, the server, keys. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Client, InvalidArgument, NotFound, PermissionDenied, PoolNotFound, QuotaExceeded, Sandbox } from 'forkyard';
import { until } from './helpers.js';

const client = new Client();

test('the server tells what it is and has', async () => {
  const info = await client.serverInfo();
  assert.match(info.version, /^\d+\.\d+\.\d+$/);
  assert.ok(['kvm', 'tcg'].includes(info.accelerator));
  assert.ok(info.qemu.length > 0 && info.capacity.memoryMb > 0);
  const python = (await client.images()).find(({ tags }) => tags.includes('python'));
  assert.match(python?.digest ?? '', /^sha256:[0-9a-f]{64}$/);
  assert.ok((python?.size ?? 0) > 0);
});

test('a pool keeps a machine ready, and create hands it out', async () => {
  const pool = await client.createPool({ image: 'python', memoryMb: 320, minReady: 1, max: 2 });
  try {
    assert.deepEqual([pool.image, pool.memoryMb, pool.minReady, pool.max], ['python', 320, 1, 2]);
    const isReady = async () => (await client.pool(pool.poolId)).ready === 1;
    await until(isReady, 'a machine is ready', 120_000);
    await using _claimed = await Sandbox.create({ image: 'python', memoryMb: 320 });
    const after = await client.pool(pool.poolId);
    assert.deepEqual([after.hits, after.claimed], [1, 1]);
    const changed = await client.changePool(pool.poolId, { image: 'python', memoryMb: 320, minReady: 1 });
    assert.equal(changed.max, undefined);
    assert.ok((await client.pools()).some(({ poolId }) => poolId === pool.poolId));
  } finally {
    await client.deletePool(pool.poolId);
  }
  await assert.rejects(client.pool(pool.poolId), PoolNotFound);
  await assert.rejects(client.createPool({ minReady: 0 }), InvalidArgument);
});

test('a project says which of its snapshots it keeps', async () => {
  const before = await client.retention();
  try {
    const policy = { budgetMb: 2048, whenFull: 'delete_oldest', keepLast: 3, maxAgeMs: 3_600_000 } as const;
    assert.deepEqual({ ...(await client.setRetention(policy)) }, policy);
    assert.deepEqual({ ...(await client.retention()) }, policy);
    await assert.rejects(client.setRetention({ keepLast: 0 }), InvalidArgument);
  } finally {
    await client.setRetention(before);
  }
  assert.deepEqual(await client.retention(), before);
});

test('keys are made, bounded and revoked', async () => {
  const { apiKey, info } = await client.createKey({ description: 'for the test', maxSandboxes: 1 });
  assert.deepEqual(
    [info.description, info.maxSandboxes, info.scope, info.requestsPerSecond],
    ['for the test', 1, 'sandboxes', 1000],
  );
  const other = new Client({ apiKey });
  await assert.rejects(other.createKey(), PermissionDenied);
  {
    await using _only = await Sandbox.create({ image: 'python', memoryMb: 256, client: other });
    await assert.rejects(Sandbox.create({ image: 'python', memoryMb: 256, client: other }), QuotaExceeded);
  }
  assert.ok((await client.listKeys()).some(({ keyId }) => keyId === info.keyId));
  await client.revokeKey(info.keyId);
  await assert.rejects(other.list(), { code: 'unauthenticated' });
  await assert.rejects(client.revokeKey(info.keyId), NotFound);
});
