/**
 * Starts a real server with real machines, runs all tests of this folder against it, and ends it. FORKYARD_BIN and
 * FORKYARD_TEST_IMAGES name the binary and the images. Arguments go to Node's test runner.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, open, readdir, readFile, rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { networkInterfaces } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const TESTS = dirname(fileURLToPath(import.meta.url));

/** An address of this host that is not loopback. */
function ownAddress(): string | undefined {
  const all = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? []);
  return all.find(({ family, internal }) => family === 'IPv4' && !internal)?.address;
}

/** A port of this host that nobody listens on. */
async function freePort(address = '127.0.0.1'): Promise<number> {
  const probe = createServer().listen(0, address);
  await once(probe, 'listening');
  const taken = probe.address();
  probe.close();
  await once(probe, 'close');
  if (taken === null || typeof taken === 'string') {
    throw new Error('no port');
  }
  return taken.port;
}

/** Waits until the server takes connections. */
async function waitUntilServed(port: number, server: ChildProcess): Promise<void> {
  const deadline = Date.now() + 60_000;
  while (Date.now() < deadline) {
    if (server.exitCode !== null) {
      throw new Error('the server ended');
    }
    const socket = connect(port, '127.0.0.1');
    const taken = await Promise.race([
      once(socket, 'connect').then(() => true),
      once(socket, 'error').then(() => false),
    ]).catch(() => false);
    socket.destroy();
    if (taken) {
      return;
    }
    await sleep(50);
  }
  throw new Error('the server does not serve');
}

/** A variable that must be set. */
function required(name: string): string {
  const value = process.env[name];
  if (value === undefined) {
    throw new Error(`${name} must be set: make test does it`);
  }
  return value;
}

/** Answers whether all went well. */
async function main(): Promise<boolean> {
  const images = required('FORKYARD_TEST_IMAGES');
  // Beside the images: machines link their files.
  const data = await mkdtemp(join(dirname(images), 'node-test-'));
  const port = await freePort();
  const options = ['--listen', `127.0.0.1:${port}`, '--data-dir', data, '--image-dir', images];
  // A page that tests serve, and machines may be allowed to reach.
  const page: Record<string, string> = {};
  const address = ownAddress();
  if (address !== undefined) {
    page.FORKYARD_TEST_ADDRESS = address;
    page.FORKYARD_TEST_PORT = String(await freePort(address));
    options.push('--network-allow', `${address}:${page.FORKYARD_TEST_PORT}`);
  }
  const log = await open(join(data, 'output'), 'w');
  const server = spawn(required('FORKYARD_BIN'), ['serve', ...options], { stdio: ['ignore', 'ignore', log.fd] });
  const ended = once(server, 'exit');
  let passed = false;
  try {
    await waitUntilServed(port, server);
    const key = (await readFile(join(data, 'api-key'), 'utf8')).trim();
    const names = process.argv.length > 2 ? process.argv.slice(2) : (await readdir(TESTS)).sort();
    const files = names.filter((name) => name.endsWith('.test.js')).map((name) => join(TESTS, name));
    const runner = spawn(process.execPath, ['--test', '--test-reporter=spec', '--test-concurrency=1', ...files], {
      env: { ...process.env, ...page, FORKYARD_URL: `http://127.0.0.1:${port}`, FORKYARD_API_KEY: key },
      stdio: 'inherit',
    });
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      process.once(signal, () => runner.kill(signal));
    }
    const [code] = await once(runner, 'exit');
    passed = code === 0;
  } finally {
    server.kill('SIGTERM');
    const [code] = await ended;
    passed &&= code === 0;
    if (!passed) {
      console.error(await readFile(join(data, 'output'), 'utf8'), `\nthe server ended with ${code}`);
    }
    await log.close();
    await rm(data, { recursive: true });
  }
  return passed;
}

process.exitCode = (await main()) ? 0 : 1;
