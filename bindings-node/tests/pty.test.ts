/** Terminals on a real machine. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Client, FailedPrecondition, InvalidArgument, NotFound, type Pty, Sandbox } from 'forkyard';
import { runs, until } from './helpers.js';

let sandbox: Sandbox;
before(async () => {
  sandbox = await Sandbox.create({ image: 'python', memoryMb: 256 });
});
after(async () => {
  await sandbox.destroy();
});

const ECHO = { cmd: 'sh', args: ['-c', 'stty -echo; echo ready; while read x; do echo got $x; done'] };

/** For a test whose terminal shows nothing more. */
const BOUNDED = { timeout: 120_000 };

/** What is shown until this is; all that is left, where nothing is asked for. */
async function shown(pty: Pty, wanted?: string | RegExp): Promise<string> {
  let all = '';
  for await (const piece of pty) {
    all += Buffer.from(piece).toString('latin1');
    if (wanted !== undefined && (typeof wanted === 'string' ? all.includes(wanted) : wanted.test(all))) {
      return all;
    }
  }
  assert.equal(wanted, undefined, `it ended with ${JSON.stringify(all)}`);
  return all;
}

test('a program finds a terminal of its own', BOUNDED, async () => {
  const script = 'stty size; echo "$TERM $K $(pwd) $(id -un)"; test -w "$(tty)" && echo mine; exit 7';
  const size = { rows: 30, cols: 100 };
  const options = { cmd: 'sh', args: ['-c', script], ...size, term: 'vt100', env: { K: 'v' }, cwd: '/tmp' };
  await using pty = await sandbox.pty(options);
  assert.deepEqual({ ...(await pty.info()).pty }, size);
  assert.equal(await shown(pty), '30 100\r\nvt100 v /tmp agent\r\nmine\r\n');
  assert.equal(pty.exit?.exitCode, 7);
  assert.equal((await pty.wait()).exitCode, 7);
  await assert.rejects(pty.write('x'), FailedPrecondition);
  await assert.rejects(pty.resize(1, 1), FailedPrecondition);
});

test('the shell takes keys and a new size', BOUNDED, async () => {
  await using pty = await sandbox.pty({ env: { PS1: '$ ' } });
  await shown(pty, '$ ');
  await pty.resize(40, 132);
  await pty.write('stty size\n');
  await shown(pty, '40 132\r\n');
  // Ctrl-C interrupts what is in the foreground and leaves the shell, and so does a signal by the API.
  await pty.write('sleep 1234\n');
  await until(() => runs(sandbox, 'sleep 1234'), 'it runs');
  await pty.write('\x03');
  await pty.write('echo still here | tr a-z A-Z\n');
  await shown(pty, 'STILL HERE');
  await pty.write('sleep 4321\n');
  await until(() => runs(sandbox, 'sleep 4321'), 'it runs');
  await pty.sendSignal(2);
  await pty.write(Buffer.from('echo done | tr a-z A-Z\n'));
  // Ctrl-D ends a shell that waits at its prompt; one that comes earlier is lost when the shell takes over the terminal.
  await shown(pty, /DONE.*\$ /s);
  await pty.write('\x04');
  assert.notEqual((await pty.wait()).exitCode, undefined);
});

test('bytes arrive as they are', BOUNDED, async () => {
  await using pty = await sandbox.pty({ cmd: 'printf', args: ['\\033[1mr\\303\\266t\\033[0m\\007\\200\\377'] });
  assert.equal(await shown(pty), '\x1b[1mr\xc3\xb6t\x1b[0m\x07\x80\xff');
});

test('two viewers see the same and both type, and a third comes late', BOUNDED, async () => {
  await using first = await sandbox.pty(ECHO);
  {
    await using second = sandbox.attachPty(first.id);
    assert.deepEqual([await shown(first, 'ready\r\n'), await shown(second, 'ready\r\n')], ['ready\r\n', 'ready\r\n']);
    await second.write('one\n');
    assert.equal(await shown(first, 'one\r\n'), 'got one\r\n');
    assert.equal(await shown(second, 'one\r\n'), 'got one\r\n');
  }
  // In a program of its own, it gets what was shown.
  const other = await Sandbox.connect(sandbox.sandboxId, { client: new Client() });
  const third = other.attachPty(first.id);
  assert.equal(await shown(third, 'one\r\n'), 'ready\r\ngot one\r\n');
  await third.detach();
  await first.write('two\n');
  assert.equal(await shown(first, 'two\r\n'), 'got two\r\n');
  const terminals = (await sandbox.processes()).filter(({ pty }) => pty !== undefined);
  assert.ok(terminals.some(({ id }) => id === first.id));
});

test('leaving its block kills what was started, and letting go leaves it', BOUNDED, async () => {
  let id = '';
  {
    await using pty = await sandbox.pty(ECHO);
    id = pty.id;
  }
  assert.equal((await sandbox.process(id).wait()).signal, 9);
  // A terminal that all have left is hung up, if so asked.
  const pty = await sandbox.pty({ ...ECHO, hangupAfterMs: 500 });
  await shown(pty, 'ready');
  await pty.detach();
  const ended = async () => (await sandbox.process(pty.id).info()).exit !== undefined;
  await until(ended, 'it is hung up', 30_000);
  assert.equal((await sandbox.process(pty.id).info()).exit?.signal, 1);
});

test('letting go and aborting end a read that is under way', BOUNDED, async () => {
  await using pty = await sandbox.pty(ECHO);
  await shown(pty, 'ready\r\n');
  const aborted = pty.output({ signal: AbortSignal.timeout(200) }).next();
  await assert.rejects(aborted, { name: 'TimeoutError' });
  const other = sandbox.attachPty(pty.id);
  await shown(other, 'ready\r\n');
  const reading = other.output().next();
  await other.detach();
  assert.deepEqual(await reading, { done: true, value: undefined });
  // What was shown meanwhile is taken up where it was.
  await pty.write('on\n');
  assert.equal(await shown(other, 'on\r\n'), 'got on\r\n');
  assert.equal(await shown(pty, 'on\r\n'), 'got on\r\n');
  await other.detach();
});

test('a fork has the terminal too', BOUNDED, async () => {
  await using pty = await sandbox.pty(ECHO);
  await shown(pty, 'ready');
  const [twin] = await sandbox.fork();
  assert.ok(twin);
  try {
    const there = twin.attachPty(pty.id);
    await there.write('twin\n');
    assert.equal(await shown(there, 'twin\r\n'), 'ready\r\ngot twin\r\n');
    await there.detach();
    await pty.write('original\n');
    assert.match(await shown(pty, 'original\r\n'), /^\s*got original\r\n$/);
  } finally {
    await twin.destroy();
  }
});

test('two programs write to one process', BOUNDED, async () => {
  const process = await sandbox.start({ cmd: 'cat', openStdin: true });
  await process.write('one\n');
  const other = sandbox.process(process.id);
  await other.write('two\n');
  await process.write('three\n');
  await other.closeStdin();
  let read = '';
  for await (const { text } of process) {
    read += text;
  }
  assert.equal(read, 'one\ntwo\nthree\n');
});

test('what cannot be is refused', BOUNDED, async () => {
  await assert.rejects(sandbox.pty({ rows: 0 }), /rows must be between 1 and 4096, not 0/);
  await assert.rejects(sandbox.pty({ cols: 1.5 }), /cols must be between 1 and 4096, not 1.5/);
  await assert.rejects(sandbox.pty({ term: 'a b' }), InvalidArgument);
  await assert.rejects(sandbox.pty({ hangupAfterMs: 0 }), InvalidArgument);
  await assert.rejects(sandbox.pty({ args: ['-l'] }), /command must be/);
  await assert.rejects(sandbox.pty({ cmd: 'no-such-program' }), NotFound);
  await assert.rejects(sandbox.attachPty('prc_nowhere').write('x'), NotFound);
  const process = await sandbox.start({ cmd: 'sleep', args: ['60'] });
  await assert.rejects(sandbox.attachPty(process.id).resize(24, 80), FailedPrecondition);
  await process.kill();
});
