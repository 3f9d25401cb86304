/**
 * Two twins, two policies: one may fetch a page from one host and nothing else, the other nothing at all.
 *
 * The page is served by this program, on an address of this host's. No machine reaches its host unless the operator opens an
 * address, so the server must run with `--network-allow ADDRESS:PORT` (this program says which).
 *
 * Usage: 04_network [PORT], with such a server running. Default: 8137.
 */

import { once } from 'node:events';
import { createServer } from 'node:http';
import { networkInterfaces } from 'node:os';
import { type NetworkEvent, Sandbox } from 'forkyard';

const PAGE = 'a page from the one host\n';

/** An address of this host's that is not loopback: a machine has a loopback of its own. */
function ownAddress(): string {
  const all = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? []);
  const own = all.find(({ family, internal }) => family === 'IPv4' && !internal);
  if (own === undefined) {
    throw new Error('this host has no address but loopback');
  }
  return own.address;
}

/** What the machine gets. */
async function fetched(machine: Sandbox, url: string): Promise<string> {
  const args = ['--silent', '--show-error', '--max-time', '20', url];
  const { stdout, stderr } = await machine.exec({ cmd: 'curl', args });
  return (stdout || stderr).trim();
}

/** One line. */
function describe({ kind, name, address, port, rule, bytesOut, bytesIn }: NetworkEvent): string {
  const where = `${name ?? address}${port === undefined ? '' : `:${port}`}`;
  const data = bytesIn > 0 ? `${bytesOut} bytes out, ${bytesIn} in` : '';
  return `${kind.padEnd(19)} ${where.padEnd(22)} by '${rule}' ${data}`.trimEnd();
}

/** Shows what a twin gets, and what the server saw of it. */
async function show(name: string, twin: Sandbox, urls: string[]): Promise<void> {
  console.log(`the twin that ${name}:`);
  for (const url of urls) {
    console.log(`  ${url.padEnd(28)} ${await fetched(twin, url)}`);
  }
  console.log(`  its link is ${(await twin.network()).link}; its events:`);
  const { events } = await twin.networkEvents({ waitMs: 2000 });
  for (const event of events) {
    console.log(`    ${describe(event)}`);
  }
  if (events.length === 0) {
    console.log('    none: nothing left it');
  }
}

async function main(host: string): Promise<void> {
  const page = `http://${host}/`;
  const urls = [page, 'http://198.51.100.7/', 'http://169.254.169.254/'];
  await using original = await Sandbox.create();
  const [guided] = await original.fork(1, { allowOut: [host] });
  const [shut] = await original.fork();
  if (guided === undefined || shut === undefined) {
    throw new Error('a twin is missing');
  }
  try {
    await show('may fetch one page', guided, urls);
    await show('may fetch nothing', shut, urls);
    if ((await fetched(guided, page)) !== PAGE.trim()) {
      throw new Error(`the page was not reached: is the server run with --network-allow ${host}?`);
    }
  } finally {
    await Promise.all([guided.destroy(), shut.destroy()]);
  }
}

const [, , port = '8137'] = process.argv;
const address = ownAddress();
const web = createServer((_, response) => response.end(PAGE)).listen(Number(port), address);
await once(web, 'listening');
try {
  await main(`${address}:${port}`);
} finally {
  web.closeAllConnections();
  web.close();
}
