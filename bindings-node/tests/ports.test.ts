/** Ports of a machine, as TypeScript says it. What is passed on, and what not, is tested with the server. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { get } from 'node:http';
import { connect } from 'node:net';
import { addAbortSignal } from 'node:stream';
import { buffer, text } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import { after, before, test } from 'node:test';
import {
  ConnectionFailed,
  DeadlineExceeded,
  FailedPrecondition,
  InvalidArgument,
  Sandbox,
  SandboxLost,
} from 'forkyard';
import { node } from './helpers.js';

const ECHO = `
import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)
class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
Server(("127.0.0.1", 7000), Echo).serve_forever()
`;

/** Takes connections and never reads. */
const DEAF = `
import socket, time
server = socket.create_server(("127.0.0.1", 7001))
kept = []
while True:
    kept.append(server.accept())
`;

let sandbox: Sandbox;
before(async () => {
  sandbox = await Sandbox.create({ image: 'python', memoryMb: 256 });
  await sandbox.writeFile('/tmp/site/index.html', 'a page');
  await sandbox.start({ cmd: 'python3', args: ['-m', 'http.server', '8000', '--directory', '/tmp/site'] });
  await sandbox.start({ cmd: 'python3', args: ['-c', ECHO] });
  await sandbox.start({ cmd: 'python3', args: ['-c', DEAF] });
  for (const port of [8000, 7000, 7001]) {
    await sandbox.ports.wait(port);
  }
});
after(async () => {
  await sandbox.destroy();
});

/** For a test whose stream brings nothing more. */
const BOUNDED = { timeout: 120_000 };

test('pages are reached with a key or a preview', BOUNDED, async () => {
  assert.deepEqual(
    (await sandbox.ports.list()).map((port) => ({ ...port })),
    [
      { port: 7000, loopbackOnly: true },
      { port: 7001, loopbackOnly: true },
      { port: 8000, loopbackOnly: false },
    ],
  );
  const url = sandbox.ports.url(8000);
  const headers = { authorization: `Bearer ${process.env.FORKYARD_API_KEY}` };
  assert.equal(await (await fetch(`${url}index.html`, { headers })).text(), 'a page');
  assert.equal((await fetch(url)).status, 401);
  assert.equal(await (await fetch(await sandbox.ports.previewUrl(8000))).text(), 'a page');
  // Part of a second is a whole one.
  assert.equal((await fetch(await sandbox.ports.previewUrl(8000, { expiresMs: 60_000.5 }))).status, 200);
});

test('a stream goes both ways', BOUNDED, async () => {
  await using stream = await sandbox.ports.connect(7000);
  stream.write('one');
  const [first] = await once(stream, 'data');
  assert.equal(String(first), 'one');
  stream.end(Buffer.from('two'));
  assert.equal(await text(stream), 'two');
  assert.ok(stream.readableEnded && stream.writableFinished);
});

test('much goes through, and waits where nobody takes it', { timeout: 300_000 }, async () => {
  await using deaf = await sandbox.ports.connect(7001);
  const much = 64 << 20;
  let isTaken = false;
  const writing = new Promise<unknown>((resolve) => deaf.write(Buffer.alloc(much), resolve)).then(() => {
    isTaken = true;
  });
  // Others are not held up by it.
  const sent = Buffer.alloc(3_000_000, 'forkyard');
  const stream = await sandbox.ports.connect(7000);
  const [heard] = await Promise.all([buffer(stream), pipeline([sent.subarray(0, 1000), sent.subarray(1000)], stream)]);
  assert.ok(heard.equals(sent));
  assert.equal(isTaken, false);
  assert.ok(deaf.writableLength >= much, `${deaf.writableLength} wait`);
  deaf.destroy();
  await writing;
});

test('closing it ends what is under way, and what comes later fails', BOUNDED, async () => {
  const stream = await sandbox.ports.connect(7000);
  const ended = once(stream, 'close');
  stream.resume();
  stream.destroy();
  await ended;
  await stream[Symbol.asyncDispose]();
  const failed = await new Promise((resolve) => stream.write('more', resolve));
  assert.equal((failed as NodeJS.ErrnoException).code, 'ERR_STREAM_DESTROYED');
  // What waits for room ends too.
  const deaf = await sandbox.ports.connect(7001);
  const writing = new Promise<Error | null | undefined>((resolve) => deaf.write(Buffer.alloc(64 << 20), resolve));
  await deaf[Symbol.asyncDispose]();
  assert.ok((await writing) instanceof Error);
  // A signal closes it as any other stream.
  const abort = new AbortController();
  const other = addAbortSignal(abort.signal, await sandbox.ports.connect(7000));
  const failure = once(other, 'data').catch((error: Error) => error.name);
  abort.abort();
  assert.equal(await failure, 'AbortError');
});

test('it carries other protocols', BOUNDED, async () => {
  const stream = await sandbox.ports.connect(8000);
  const page = await new Promise((resolve, reject) => {
    get({ path: '/index.html', createConnection: () => stream }, (answer) => resolve(text(answer))).on('error', reject);
  });
  assert.equal(page, 'a page');
});

test('a forwarded port leads there until it is closed', BOUNDED, async () => {
  const forward = await sandbox.ports.forward(7000);
  assert.equal(forward.host, '127.0.0.1');
  const near = connect(forward.port, forward.host);
  const sent = Buffer.alloc(1_000_000, 'x');
  near.end(sent);
  assert.ok((await buffer(near)).equals(sent));
  await assert.rejects(sandbox.ports.forward(7000, { localPort: forward.port }), InvalidArgument);
  const open = connect(forward.port, forward.host);
  await once(open, 'connect');
  const broken = Promise.race([once(open, 'close'), once(open, 'error')]).catch(() => {});
  await forward.close();
  await forward[Symbol.asyncDispose]();
  await broken;
  const late = connect(forward.port, forward.host);
  await assert.rejects(once(late, 'connect'), { code: 'ECONNREFUSED' });
});

test('a program with an open stream and a forwarded port ends when nothing is awaited', BOUNDED, async () => {
  const program = `
    import { Sandbox } from 'forkyard';
    const machine = await Sandbox.connect(process.argv[1]);
    globalThis.forward = await machine.ports.forward(7000);
    globalThis.stream = await machine.ports.connect(7000);
    stream.write('x', () => console.log('written'));
  `;
  const done = await node(['--input-type=module', '-e', program, sandbox.sandboxId], 60_000);
  assert.deepEqual([done.code, done.signal, done.stdout, done.stderr], [0, null, 'written\n', '']);
});

test('waiting is aborted', BOUNDED, async () => {
  const waiting = sandbox.ports.wait(81, { signal: AbortSignal.timeout(200) });
  await assert.rejects(waiting, { name: 'TimeoutError' });
});

test('what cannot be is refused', BOUNDED, async () => {
  await assert.rejects(sandbox.ports.connect(81), FailedPrecondition);
  await assert.rejects(sandbox.ports.connect(81), /nothing listens on port 81 /);
  await assert.rejects(sandbox.ports.wait(81, { timeoutMs: 0 }), DeadlineExceeded);
  for (const port of [0, -1, 1.5, 65_536, Number.NaN]) {
    assert.throws(() => sandbox.ports.url(port), /a port must be between 1 and 65535, not /);
    await assert.rejects(sandbox.ports.connect(port), InvalidArgument);
    await assert.rejects(sandbox.ports.forward(port), InvalidArgument);
  }
  await assert.rejects(sandbox.ports.connect('80' as unknown as number), InvalidArgument);
  await assert.rejects(sandbox.ports.forward(80, { localPort: 65_536 }), /localPort must be between 0 and 65535/);
  await assert.rejects(sandbox.ports.forward(80, { host: 'no host' }), InvalidArgument);
  await assert.rejects(sandbox.ports.previewUrl(80, { expiresMs: 0 }), /expires_secs must be between 1 and 604800/);
  await assert.rejects(sandbox.ports.previewUrl(80, { expiresMs: -1 }), /expiresMs must be/);
});

test('a stream breaks off with its machine', BOUNDED, async () => {
  const [twin] = await sandbox.fork();
  assert.ok(twin);
  const stream = await twin.ports.connect(7000);
  // Listened to at once: it may fail before the machine's end is answered.
  const failing = assert.rejects(buffer(stream), ConnectionFailed);
  await twin.destroy();
  await failing;
  await assert.rejects(twin.ports.connect(7000), SandboxLost);
});
