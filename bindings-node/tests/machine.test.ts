/** A machine's life, its commands and its files. */

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import {
  Client,
  CommandFailed,
  CommandTimeout,
  FailedPrecondition,
  FileNotFound,
  ImageNotFound,
  InvalidArgument,
  NotFound,
  Sandbox,
  SandboxLost,
  SandboxNotFound,
  Unauthenticated,
} from 'forkyard';
import { runs, until } from './helpers.js';

let sandbox: Sandbox;
before(async () => {
  sandbox = await Sandbox.create({ image: 'python', memoryMb: 256 });
});
after(async () => {
  await sandbox.destroy();
});

test('a machine is made as asked for, and ended when its block is left', async () => {
  const client = new Client();
  let id = '';
  {
    await using machine = await Sandbox.create({
      image: 'python',
      cpu: 1,
      memoryMb: 320,
      timeoutMs: 59_001,
      env: { GREETING: 'hello' },
      labels: { of: 'the test' },
      client,
    });
    id = machine.sandboxId;
    const info = await machine.info();
    assert.equal(info.status, 'running');
    assert.equal(machine.status, 'running');
    assert.deepEqual(
      [info.sandboxId, info.image, info.cpu, info.memoryMb, info.timeoutMs, info.labels],
      [id, 'python', 1, 320, 60_000, { of: 'the test' }],
    );
    assert.ok(Math.abs(Date.now() - info.createdAtMs) < 120_000);
    assert.ok(info.startedAtMs !== undefined && info.startedAtMs >= info.createdAtMs);
    assert.equal(info.endedAtMs, undefined);
    const result = await machine.exec({ cmd: 'printenv', args: ['GREETING'] });
    assert.equal(result.stdout, 'hello\n');
    assert.equal((await (await Sandbox.connect(id)).info()).sandboxId, id);
    assert.ok((await client.list()).some((other) => other.sandboxId === id));
  }
  const gone = await client.get(id);
  assert.equal(gone.status, 'terminated');
  assert.ok(gone.endedAtMs !== undefined);
  assert.equal((await client.destroy(id)).status, 'terminated');
  await assert.rejects((await Sandbox.connect(id)).exec({ cmd: 'true' }), (error) => {
    assert.ok(error instanceof SandboxLost || error instanceof FailedPrecondition, String(error));
    return true;
  });
});

test('a command has its arguments, environment, folder, input, and both outputs', async () => {
  const result = await sandbox.exec({
    cmd: 'sh',
    args: ['-c', 'printf "%s|%s|%s|" "$1" "$WORD" "$PWD"; cat; printf oops >&2; exit 3', 'sh', 'a b "c"'],
    env: { WORD: 'wörd' },
    cwd: '/tmp',
    stdin: 'in 入力',
  });
  assert.equal(result.stdout, 'a b "c"|wörd|/tmp|in 入力');
  assert.equal(result.stderr, 'oops');
  assert.deepEqual([result.exitCode, result.signal, result.ok], [3, null, false]);
  assert.deepEqual([result.oomKilled, result.timedOut], [false, false]);
  assert.ok(result.durationMs >= 0 && result.processId.length > 0);
  const killed = await sandbox.exec({ cmd: 'sh', args: ['-c', 'kill -TERM $$'] });
  assert.deepEqual([killed.exitCode, killed.signal], [null, 15]);
});

test('binary output stays binary, and text is replaced where it is none', async () => {
  const data = randomBytes(100_000);
  const result = await sandbox.exec({ cmd: 'cat', stdin: data });
  assert.ok(result.stdoutBytes instanceof Uint8Array);
  assert.ok(Buffer.from(result.stdoutBytes).equals(data));
  const mixed = await sandbox.exec({ cmd: 'cat', stdin: Uint8Array.of(0xff, 0x61) });
  assert.equal(mixed.stdout, '\ufffda');
});

test('output is told as it comes, its characters whole, and what a listener returns is awaited', async () => {
  const script = 'printf "\\303"; sleep 0.5; printf "\\244\\n"; printf err >&2';
  const heard: string[] = [];
  let listening = false;
  const result = await sandbox.exec({
    cmd: 'sh',
    args: ['-c', script],
    onStdout: async (text) => {
      assert.equal(listening, false);
      listening = true;
      await new Promise((resolve) => setTimeout(resolve, 10));
      heard.push(text);
      listening = false;
    },
    onStderr: (text) => heard.push(`E:${text}`),
  });
  assert.deepEqual(heard.sort(), ['E:err', 'ä\n']);
  assert.deepEqual([result.stdout, result.stderr, result.exitCode], ['ä\n', 'err', 0]);
});

test('an error in a listener ends the call and the command', async () => {
  const failing = sandbox.exec({
    cmd: 'sh',
    args: ['-c', 'echo now; exec sleep 4441'],
    onStdout: () => {
      throw new RangeError('enough');
    },
  });
  await assert.rejects(failing, RangeError);
  await until(async () => !(await runs(sandbox, 'sleep 4441')), 'the command was killed');
});

test('a process is watched, written to, waited for and attached to again', async () => {
  const process = await sandbox.start({
    cmd: 'sh',
    args: ['-c', 'read a; echo "got $a"; cat; exit 5'],
    openStdin: true,
  });
  assert.equal((await process.info()).state, 'running');
  await process.write('first\n');
  const pieces: string[] = [];
  for await (const piece of process) {
    assert.equal(piece.stream, 'stdout');
    pieces.push(piece.text);
    if (pieces.length === 1) {
      await process.write(Buffer.from('second'));
      await process.closeStdin();
    }
  }
  assert.equal(pieces.join(''), 'got first\nsecond');
  assert.equal((await process.wait()).exitCode, 5);
  assert.equal(process.exit?.exitCode, 5);
  const again = sandbox.process(process.id);
  let text = '';
  for await (const piece of again) {
    text += piece.text;
  }
  assert.equal(text, 'got first\nsecond');
  const info = (await sandbox.processes()).find(({ id }) => id === process.id);
  assert.deepEqual([info?.state, info?.exit?.exitCode, info?.cmd], ['exited', 5, 'sh']);
  await assert.rejects(process.sendSignal(15), FailedPrecondition);
});

test('leaving the loop leaves the process running, and it can be killed', async () => {
  const process = await sandbox.start({ cmd: 'sh', args: ['-c', 'echo one; echo two; exec sleep 4442'] });
  for await (const _ of process) {
    break;
  }
  assert.equal((await process.info()).state, 'running');
  await process.kill();
  assert.equal((await process.wait()).signal, 9);
});

test('an aborted command is killed, with listeners and without', async () => {
  for (const [seconds, onStdout] of [
    ['4443', undefined],
    ['4444', () => {}],
  ] as const) {
    const abort = new AbortController();
    const running = sandbox.exec({ cmd: 'sleep', args: [seconds], signal: abort.signal, onStdout });
    const rejected = assert.rejects(running, (error) => error === abort.signal.reason);
    await until(() => runs(sandbox, `sleep ${seconds}`), 'it runs');
    abort.abort(new Error('enough'));
    await rejected;
    await until(async () => !(await runs(sandbox, `sleep ${seconds}`)), 'it was killed');
  }
  const aborted = sandbox.exec({ cmd: 'true', signal: AbortSignal.abort() });
  await assert.rejects(aborted, { name: 'AbortError' });
  await assert.rejects(sandbox.exec({ cmd: 'sleep', args: ['60'], signal: AbortSignal.timeout(500) }), {
    name: 'TimeoutError',
  });
});

test('an abort of a wait leaves the process, and what it wrote', async () => {
  const process = await sandbox.start({ cmd: 'sh', args: ['-c', 'read a; echo "$a"'], openStdin: true });
  await assert.rejects(process.wait({ signal: AbortSignal.timeout(300) }), { name: 'TimeoutError' });
  await process.write('kept\n');
  let text = '';
  for await (const piece of process) {
    text += piece.text;
  }
  assert.equal(text, 'kept\n');
});

test('an aborted create leaves no machine', async () => {
  const client = new Client();
  const mark = `node-${process.pid}-${Date.now()}`;
  const mine = async () => (await client.list()).filter(({ labels }) => labels.mark === mark);
  const abort = new AbortController();
  const making = Sandbox.create({ image: 'python', memoryMb: 256, labels: { mark }, signal: abort.signal });
  const rejected = assert.rejects(making, { name: 'AbortError' });
  await until(async () => (await mine()).length === 1, 'the server makes it');
  abort.abort();
  await rejected;
  await until(async () => (await mine()).every(({ status }) => status === 'terminated'), 'it is ended');
});

test('what is big flows through with little in memory', async () => {
  const size = 64 * 1024 * 1024;
  const process_ = await sandbox.start({ cmd: 'head', args: ['-c', String(size), '/dev/zero'] });
  let seen = 0;
  let most = 0;
  for await (const { data } of process_) {
    seen += data.length;
    const { external, arrayBuffers } = process.memoryUsage();
    most = Math.max(most, external + arrayBuffers);
  }
  assert.equal(process_.exit?.exitCode, 0);
  assert.equal(seen + process_.dropped, size);
  assert.ok(most < 2 * size, `${most} bytes were held`);
});

test('a failed command and one whose time is up bring their output', async () => {
  const failing = sandbox.exec({ cmd: 'sh', args: ['-c', 'echo why >&2; exit 7'], check: true });
  await assert.rejects(failing, (error) => {
    assert.ok(error instanceof CommandFailed);
    assert.deepEqual([error.name, error.code], ['CommandFailed', 'command_failed']);
    assert.equal(error.message, 'the command exited with 7: why');
    assert.equal(error.result.exitCode, 7);
    return true;
  });
  const slow = sandbox.exec({ cmd: 'sh', args: ['-c', 'echo begun; sleep 60'], timeoutMs: 1500 });
  await assert.rejects(slow, (error) => {
    assert.ok(error instanceof CommandTimeout);
    assert.deepEqual([error.code, error.result.stdout, error.result.timedOut], ['timeout', 'begun\n', true]);
    return true;
  });
});

test('errors have their class, code and request', async () => {
  const client = new Client();
  await assert.rejects(client.get('sbx_01ARZ3NDEKTSV4RRFFQ69G5FAV'), (error) => {
    assert.ok(error instanceof SandboxNotFound && error instanceof NotFound && error instanceof Error);
    assert.deepEqual([error.name, error.code, error.resource], ['SandboxNotFound', 'not_found', 'sandbox']);
    assert.ok(error.requestId);
    assert.match(error.stack ?? '', /machine\.test/);
    return true;
  });
  await assert.rejects(Sandbox.create({ image: 'no-such-image' }), ImageNotFound);
  await assert.rejects(Sandbox.create({ memoryMb: 5 }), InvalidArgument);
  await assert.rejects(Sandbox.create({ memoryMb: 256.5 }), /memoryMb must be a whole number/);
  // @ts-expect-error: JavaScript may give anything.
  await assert.rejects(Sandbox.create({ memoryMb: 'much' }), /memoryMb must be a number, not String/);
  // @ts-expect-error: the same.
  await assert.rejects(sandbox.exec({ cmd: 'sh', args: '-c true' }), /args must be an array/);
  await assert.rejects(sandbox.exec({ cmd: 'no-such-program' }), NotFound);
  await assert.rejects(sandbox.readFile('/no/such/file'), (error) => {
    assert.ok(error instanceof FileNotFound);
    assert.deepEqual([error.errno, error.resource], ['ENOENT', 'file']);
    return true;
  });
  await assert.rejects(sandbox.readFile('relative'), /must be absolute/);
  assert.throws(() => new Client({ url: 'ftp://x' }), InvalidArgument);
  assert.throws(() => sandbox.process('x'), InvalidArgument);
  await assert.rejects(new Client({ apiKey: 'fy_wrong' }).list(), Unauthenticated);
});

test('files go both ways, with any bytes and any name', async () => {
  const data = randomBytes(300_000);
  const path = '/workspace/dir/ünï 🦀.bin';
  const written = await sandbox.writeFile(path, data, { mode: 0o600 });
  assert.deepEqual([written.name, written.kind, written.size, written.mode], ['ünï 🦀.bin', 'file', 300_000, 0o600]);
  assert.ok(Buffer.from(await sandbox.readFile(path)).equals(data));
  const part = await sandbox.readFile(path, { offset: 1000, length: 10 });
  assert.deepEqual(Buffer.from(part), data.subarray(1000, 1010));
  await sandbox.writeFile('/workspace/dir/text', 'grüße');
  assert.equal(await sandbox.readText('/workspace/dir/text'), 'grüße');
  assert.equal(await sandbox.readFile('/workspace/dir/text', { encoding: 'utf8' }), 'grüße');
  const strange = Buffer.concat([Buffer.from('/workspace/dir/'), Uint8Array.of(0xff, 0xfe)]);
  await sandbox.writeFile(strange, 'x');
  const entries = await sandbox.list('/workspace/dir');
  assert.deepEqual(entries.map(({ name }) => name).sort(), ['text', 'ünï 🦀.bin', '\ufffd\ufffd'].sort());
  const bytes = entries.find(({ nameBytes }) => nameBytes !== undefined)?.nameBytes;
  assert.deepEqual([...(bytes ?? [])], [0xff, 0xfe]);
  assert.equal((await sandbox.stat(strange)).size, 1);
  assert.equal((await sandbox.mkdir('/workspace/dir/a/b')).kind, 'directory');
  await sandbox.move('/workspace/dir/text', '/workspace/dir/a/b/text');
  assert.deepEqual(
    [await sandbox.exists('/workspace/dir/text'), await sandbox.exists('/workspace/dir/a/b/text')],
    [false, true],
  );
  await sandbox.writeFile('/workspace/dir/other', 'y');
  await assert.rejects(sandbox.move('/workspace/dir/other', '/workspace/dir/a/b/text'));
  await sandbox.move('/workspace/dir/other', '/workspace/dir/a/b/text', { overwrite: true });
  assert.equal(await sandbox.readText('/workspace/dir/a/b/text'), 'y');
  await assert.rejects(sandbox.remove('/workspace/dir'));
  await sandbox.remove('/workspace/dir', { recursive: true });
  assert.equal(await sandbox.exists('/workspace/dir'), false);
});

test('local files are sent and fetched, with progress that counts up', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'forkyard-node-'));
  try {
    const data = randomBytes(5_000_000);
    await writeFile(join(folder, 'up'), data);
    const up: number[] = [];
    const sent = await sandbox.upload(join(folder, 'up'), '/workspace/up', { onProgress: (bytes) => up.push(bytes) });
    assert.equal(sent.size, data.length);
    const down: number[] = [];
    const size = await sandbox.download('/workspace/up', join(folder, 'down'), { onProgress: (n) => down.push(n) });
    assert.equal(size, data.length);
    assert.ok((await readFile(join(folder, 'down'))).equals(data));
    for (const told of [up, down]) {
      assert.equal(told.at(-1), data.length);
      assert.deepEqual(
        [...told].sort((a, b) => a - b),
        told,
      );
    }
    await assert.rejects(sandbox.upload(join(folder, 'none'), '/workspace/none'), NotFound);
    await truncate(join(folder, 'up'), 200_000_000);
    const failing = sandbox.upload(join(folder, 'up'), '/workspace/big', {
      onProgress: () => {
        throw new RangeError('enough');
      },
    });
    await assert.rejects(failing, RangeError);
    await assert.rejects(
      sandbox.upload(join(folder, 'up'), '/workspace/big', { signal: AbortSignal.timeout(300), onProgress: () => {} }),
      { name: 'TimeoutError' },
    );
    assert.equal(await sandbox.exists('/workspace/big'), false);
  } finally {
    await rm(folder, { recursive: true });
  }
});
