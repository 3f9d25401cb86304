/** What happens in folders and to machines, as TypeScript says it. What is told, and what not, is in the conformance suite. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { type FileEvent, FileNotFound, InvalidArgument, Sandbox, type SandboxEvent, Watch } from 'forkyard';

let sandbox: Sandbox;
before(async () => {
  sandbox = await Sandbox.create({ image: 'base', memoryMb: 256 });
});
after(() => sandbox.destroy());

/** For a test that waits for what may not come. */
const BOUNDED = { timeout: 120_000 };

test('a loop that is left goes on where it was, and closing ends one that waits', BOUNDED, async () => {
  await sandbox.mkdir('/tmp/watched');
  const watch = await sandbox.watch('/tmp/watched');
  await sandbox.exec({ cmd: 'sh', args: ['-c', 'cd /tmp/watched; mkdir a; mv a b'], check: true });
  const told: FileEvent[] = [];
  for await (const event of watch) {
    told.push(event);
    break;
  }
  for await (const event of watch.iter({ signal: AbortSignal.timeout(60_000) })) {
    told.push(event);
    break;
  }
  assert.deepEqual(
    told.map((event) => ({ ...event })),
    [
      { kind: 'created', path: '/tmp/watched/a', isDir: true },
      { kind: 'moved', path: '/tmp/watched/b', from: '/tmp/watched/a', isDir: true },
    ],
  );
  const waiting = watch[Symbol.asyncIterator]().next();
  await watch[Symbol.asyncDispose]();
  assert.deepEqual(await waiting, { done: true, value: undefined });
  await watch.close();
});

test('a signal ends watching and iterating, and no event is lost by one', BOUNDED, async () => {
  await assert.rejects(sandbox.watch('/tmp/none'), FileNotFound);
  await assert.rejects(sandbox.watch('/tmp', { signal: AbortSignal.abort(new Error('before')) }), /before/);
  await sandbox.mkdir('/tmp/signalled');
  const whole = new AbortController();
  const watch = await sandbox.watch('/tmp/signalled', { recursive: false, signal: whole.signal });
  assert.ok(watch instanceof Watch);
  const once = new AbortController();
  const given = watch.iter({ signal: once.signal }).next();
  once.abort(new Error('enough'));
  await assert.rejects(given, /enough/);
  await sandbox.mkdir('/tmp/signalled/a');
  const next = await watch[Symbol.asyncIterator]().next();
  assert.equal(next.value?.path, '/tmp/signalled/a');
  const waiting = (async () => {
    for await (const event of watch) {
      // It is given to its owner once it is made.
      assert.equal(event.path, '/tmp/signalled/a');
    }
  })();
  whole.abort(new Error('all of it'));
  await assert.rejects(waiting, /all of it/);
  await watch.close();
});

test('a life is listed and followed to its end', BOUNDED, async () => {
  const machine = await Sandbox.create({ image: 'base', memoryMb: 256 });
  const { events, cursor, ended } = await machine.events();
  assert.deepEqual(
    events.map(({ kind }) => kind),
    ['created', 'started'],
  );
  assert.equal(ended, false);
  assert.ok(Math.abs(Date.now() - (events[0]?.atMs ?? 0)) < 600_000);
  const told: SandboxEvent[] = [];
  const following = (async () => {
    for await (const event of machine.followEvents({ cursor })) {
      told.push(event);
    }
  })();
  await machine.destroy();
  await following;
  assert.deepEqual(
    told.map(({ kind, reason }) => [kind, reason]),
    [['terminated', 'asked for by the caller']],
  );
  const stopped = machine.followEvents({ signal: AbortSignal.abort(new Error('before')) });
  await assert.rejects(stopped[Symbol.asyncIterator]().next(), /before/);
  await assert.rejects(machine.events({ waitMs: -1 }), InvalidArgument);
  await assert.rejects(machine.events({ cursor: 'x' }), InvalidArgument);
});
