/** The back end of `examples/node/05_backend.ts`, as a browser sees it. */

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { Client } from 'forkyard';
import { COMPILED, type Ended, ended, PACKAGE, until } from './helpers.js';

const BOUNDED = { timeout: 180_000 };

let backend: ChildProcess;
let over: Promise<Ended>;
let url = '';
before(async () => {
  backend = spawn(process.execPath, [join(COMPILED, 'examples/node/05_backend.js'), '0'], {
    cwd: PACKAGE,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  over = ended(backend);
  assert.ok(backend.stdout);
  for await (const line of createInterface(backend.stdout)) {
    url = line.replace('open ', '');
    break;
  }
  assert.match(url, /^http:\/\/127\.0\.0\.1:\d+$/);
});
after(() => {
  backend.kill('SIGKILL');
});

/** What server-sent events tell. */
interface Told {
  id: number;
  event: string;
  data: { stream?: string; text?: string; exitCode?: number; message?: string };
}

async function post(body: string, type = 'application/json'): Promise<Response> {
  return await fetch(`${url}/tasks`, { method: 'POST', headers: { 'content-type': type }, body });
}

async function begin(program: string): Promise<string> {
  const answer = await post(JSON.stringify({ program }));
  assert.equal(answer.status, 202);
  return ((await answer.json()) as { id: string }).id;
}

/** A task's events, as a browser gets them that had those up to this one. */
async function* events(id: string, had = 0): AsyncGenerator<Told, void> {
  const headers: Record<string, string> = had === 0 ? {} : { 'last-event-id': String(had) };
  const answer = await fetch(`${url}/tasks/${id}/events`, { headers });
  assert.equal(answer.headers.get('content-type'), 'text/event-stream');
  assert.ok(answer.body);
  let text = '';
  for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) {
    text += piece;
    const whole = text.split('\n\n');
    text = whole.pop() ?? '';
    for (const block of whole.filter((it) => !it.startsWith(':'))) {
      const [, number, event, data] = /^id: (\d+)\nevent: (\w+)\ndata: (.*)$/.exec(block) ?? assert.fail(block);
      yield { id: Number(number), event: event ?? '', data: JSON.parse(data ?? '') };
    }
  }
}

async function all(id: string, had = 0): Promise<Told[]> {
  const told: Told[] = [];
  for await (const event of events(id, had)) {
    told.push(event);
  }
  return told;
}

/** Reads on to a line's end; a program may write it in pieces. */
async function line(told: AsyncGenerator<Told, void>): Promise<string> {
  let text = '';
  while (!text.endsWith('\n')) {
    const next = await told.next();
    assert.ok(!next.done && next.value.event === 'output', JSON.stringify(next));
    text += next.value.data.text ?? '';
  }
  return text.trim();
}

const output = (told: Told[], stream = 'stdout'): string =>
  told.map(({ data }) => (data.stream === stream ? data.text : '')).join('');

test('each task has a machine of its own, and its output comes as it is printed', BOUNDED, async () => {
  const program = (name: string): string =>
    `import platform, sys; print("${name}", platform.node()); print("ü", file=sys.stderr); input()`;
  const ids = await Promise.all([begin(program('one')), begin(program('two'))]);
  const told = await Promise.all(ids.map((id) => all(id)));
  const nodes = told.map((events, index) => {
    assert.equal(events.at(-1)?.event, 'end');
    // Nothing comes in by standard input.
    assert.equal(events.at(-1)?.data.exitCode, 1);
    assert.match(output(events, 'stderr'), /^ü\n/);
    return new RegExp(`${['one', 'two'][index]} (sbx-\\w+)\n`).exec(output(events))?.[1];
  });
  assert.ok(nodes[0] !== undefined && nodes[1] !== undefined && nodes[0] !== nodes[1], `${nodes}`);
});

test('a browser that comes back gets what it missed, and nothing twice', BOUNDED, async () => {
  const id = await begin('import time\nfor n in range(5): print(n, flush=True); time.sleep(0.2)');
  let had = 0;
  let text = '';
  for await (const event of events(id)) {
    had = event.id;
    text += event.data.text ?? '';
    // It has the first, and leaves.
    break;
  }
  text += output(await all(id, had));
  assert.equal(text, '0\n1\n2\n3\n4\n');
  assert.equal(output(await all(id)), text, 'who comes late gets all of it');
});

test('a task that is ended is killed with its machine', BOUNDED, async () => {
  const id = await begin('import platform, time; print(platform.node()); time.sleep(600)');
  const told = events(id);
  const host = await line(told);
  const client = new Client();
  // A machine's host name is its id as far as a host name can be.
  const runs = async (): Promise<boolean> =>
    (await client.list({ status: 'running' })).some(
      ({ sandboxId }) => sandboxId.toLowerCase().replace('_', '-') === host,
    );
  assert.ok(await runs(), host);
  assert.equal((await fetch(`${url}/tasks/${id}`, { method: 'DELETE' })).status, 204);
  const last = await told.next();
  assert.ok(!last.done && last.value.event === 'failed', JSON.stringify(last));
  assert.match(last.value.data.message ?? '', /ended/);
  await until(async () => !(await runs()), 'its machine is gone');
});

test('what cannot be answered is refused with the reason', BOUNDED, async () => {
  const refused = async (answer: Response): Promise<string> => ((await answer.json()) as { error: string }).error;
  const cases: [number, RegExp, Promise<Response>][] = [
    [415, /application\/json/, post('print(1)', 'text/plain')],
    [400, /no JSON/, post('{')],
    [400, /must be text/, post('{"program": 1}')],
    [400, /must be text/, post('null')],
    [413, /65536 bytes/, post(JSON.stringify({ program: ' '.repeat(70_000) }))],
    [404, /nothing here/, fetch(`${url}/tasks/none/events`)],
    [404, /nothing here/, fetch(`${url}/elsewhere`)],
  ];
  for (const [status, message, asked] of cases) {
    const answer = await asked;
    assert.equal(answer.status, status);
    assert.match(await refused(answer), message);
  }
  const page = await fetch(url);
  assert.match(await page.text(), /EventSource/);
});

test('interrupted, it ends its tasks and leaves no machine', BOUNDED, async () => {
  const id = await begin('print("on"); import time; time.sleep(600)');
  const told = events(id);
  assert.equal(await line(told), 'on');
  backend.kill('SIGTERM');
  const { code, stdout } = await over;
  assert.equal(code, 0);
  assert.match(stdout, /all machines are gone/);
});
