/** What machines may reach, as TypeScript says it. What they do reach is tested with the server. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';
import { InvalidArgument, type NetworkEvent, type NetworkPolicy, Sandbox, swarm } from 'forkyard';
import { NO_PAGE, PAGE } from './helpers.js';

const MACHINE = { image: 'python', memoryMb: 256 };
const NOTHING: NetworkPolicy = { allowInternetAccess: false, allowOut: [], denyOut: [] };
const GUIDED: NetworkPolicy = {
  allowInternetAccess: false,
  allowOut: ['one.example:443'],
  denyOut: ['*.example'],
  maxConnections: 7,
  bandwidthKbps: 800,
};

let guided: Sandbox;
before(async () => {
  guided = await Sandbox.create({ ...MACHINE, ...GUIDED });
});
after(async () => {
  await guided.destroy();
});

/** How curl ends in the machine. */
async function curl(machine: Sandbox, url: string): Promise<number | null> {
  const { exitCode } = await machine.exec({ cmd: 'curl', args: ['-s', '--max-time', '20', url], timeoutMs: 60_000 });
  return exitCode;
}

test('a policy comes back as it was given', async () => {
  const { policy, counters, link } = await guided.network();
  assert.deepEqual({ ...policy }, GUIDED);
  assert.equal(link, 'up');
  assert.equal(Object.keys(counters).length, 8);
  assert.ok(Object.values(counters).every((count) => Number.isInteger(count) && count >= 0));
});

test('a machine reaches nothing by default', async () => {
  await using machine = await Sandbox.create(MACHINE);
  const { policy, link } = await machine.network();
  assert.deepEqual({ ...policy }, NOTHING);
  assert.equal(link, 'down');
  assert.equal(await curl(machine, 'http://203.0.113.7/'), 7);
  assert.deepEqual({ ...(await machine.networkEvents()) }, { events: [] });
});

test('events come with a cursor, and are waited for', async () => {
  assert.equal(await curl(guided, 'http://other.example/'), 6);
  const first = await guided.networkEvents({ waitMs: 10_000 });
  const refused = first.events.at(-1);
  assert.deepEqual(
    [refused?.kind, refused?.name, refused?.rule, refused?.verdict, refused?.protocol, refused?.address],
    ['dns_refused', 'other.example', '*.example', 'refused', 'dns', undefined],
  );
  assert.ok(Math.abs((refused?.atMs ?? 0) - Date.now()) < 60_000);
  const { cursor } = await guided.networkEvents();
  const began = performance.now();
  assert.deepEqual((await guided.networkEvents({ cursor, waitMs: 500 })).events, []);
  assert.ok(performance.now() - began >= 490);
  const coming = guided.networkEvents({ cursor, waitMs: 20_000 });
  assert.equal(await curl(guided, 'http://third.example/'), 6);
  assert.equal((await coming).events[0]?.name, 'third.example');
});

test('waiting for events is aborted', async () => {
  const { cursor } = await guided.networkEvents();
  const began = performance.now();
  const waiting = guided.networkEvents({ cursor, waitMs: 25_000, signal: AbortSignal.timeout(200) });
  await assert.rejects(waiting, { name: 'TimeoutError' });
  assert.ok(performance.now() - began < 20_000);
});

test('forks have the policy of their original, or their own', async () => {
  const [same] = await guided.fork();
  const [other] = await guided.fork(1, { allowInternetAccess: false });
  try {
    assert.deepEqual({ ...(await same?.network())?.policy }, GUIDED);
    assert.deepEqual({ ...(await other?.network())?.policy }, NOTHING);
  } finally {
    await Promise.all([same?.destroy(), other?.destroy()]);
  }
});

test('a policy changes while the machine runs', async () => {
  await using machine = await Sandbox.create(MACHINE);
  assert.equal((await machine.updateNetwork({ allowInternetAccess: true })).policy.allowInternetAccess, true);
  const up = await machine.exec({ cmd: 'cat', args: ['/sys/class/net/eth0/operstate', '/etc/resolv.conf'] });
  assert.equal(up.stdout, 'up\nnameserver 10.0.2.2\n');
  const back = await machine.updateNetwork();
  assert.deepEqual({ ...back.policy }, NOTHING);
  assert.equal(back.link, 'down');
  // What one machine was told is as good for another.
  assert.deepEqual({ ...(await machine.updateNetwork((await guided.network()).policy)).policy }, GUIDED);
});

test('a page goes through the gateway, and is counted', { skip: NO_PAGE }, async () => {
  const page = 'x'.repeat(100_000);
  const web = createServer((_, response) => response.end(page)).listen(Number(PAGE.port), PAGE.address);
  await once(web, 'listening');
  const host = `${PAGE.address}:${PAGE.port}`;
  try {
    await using machine = await Sandbox.create({ ...MACHINE, allowOut: [host] });
    const got = await machine.exec({ cmd: 'curl', args: ['-s', '--max-time', '60', `http://${host}/`] });
    assert.deepEqual([got.exitCode, got.stdout.length], [0, page.length]);
    const events: NetworkEvent[] = [];
    let cursor: string | undefined;
    while (!events.some(({ kind }) => kind === 'connection_ended')) {
      const more = await machine.networkEvents({ cursor, waitMs: 10_000 });
      assert.notEqual(more.events.length, 0, 'the connection ends');
      events.push(...more.events);
      cursor = more.cursor;
    }
    assert.deepEqual(
      events.map(({ kind }) => kind),
      ['connection_opened', 'connection_ended'],
    );
    const { protocol, address, port, rule, verdict, bytesIn, bytesOut } = events[1] as NetworkEvent;
    assert.deepEqual([protocol, address, port, rule, verdict], ['tcp', PAGE.address, PAGE.port, host, 'allowed']);
    assert.ok(bytesIn > page.length && bytesOut > 0);
    const { counters } = await machine.network();
    assert.deepEqual(
      [counters.connectionsTotal, counters.connectionsOpen, counters.bytesIn, counters.bytesOut],
      [1, 0, bytesIn, bytesOut],
    );
  } finally {
    web.closeAllConnections();
    web.close();
  }
});

test('what is wrong is named', async () => {
  const refused = (promise: Promise<unknown>, message: RegExp) =>
    assert.rejects(promise, (error) => {
      assert.ok(error instanceof InvalidArgument, String(error));
      assert.match(error.message, message);
      return true;
    });
  await refused(Sandbox.create({ allowOut: ['https://pypi.org'] }), /allow_out\[0\]: 'https:\/\/pypi\.org'/);
  await refused(guided.updateNetwork({ maxConnections: 0 }), /max_connections must be between 1 and 4096/);
  await refused(guided.updateNetwork({ maxConnections: 1.5 }), /maxConnections must be a whole number/);
  await refused(guided.fork(1, { bandwidthKbps: 7 }), /bandwidth_kbps must be between 8/);
  await refused(guided.networkEvents({ cursor: 'yesterday' }), /no cursor/);
  await refused(guided.networkEvents({ waitMs: -1 }), /waitMs must be a number of milliseconds of 0 or more/);
  await refused(guided.updateNetwork({ allowOut: 'pypi.org' as unknown as string[] }), /allowOut must be an array/);
  await refused(
    guided.updateNetwork({ allowInternetAccess: 1 as unknown as boolean }),
    /^allowInternetAccess must be true or false$/,
  );
  assert.deepEqual({ ...(await guided.network()).policy }, GUIDED);
});

test("a swarm's machines have its policy", async () => {
  const report = await swarm(async (machine) => (await machine.network()).policy.allowOut, [1], {
    ...MACHINE,
    allowOut: ['one.example'],
  });
  assert.deepEqual(report.results, [['one.example']]);
});
