/**
 * A back end for agents: it takes Python programs, runs each in a machine of its own, and streams what they print to a browser by
 * server-sent events.
 *
 *   GET    /                  a page to try it
 *   POST   /tasks             {"program": …} as JSON; answers 202 and {"id": …}
 *   GET    /tasks/ID/events   `output` events as the program prints, then one `end` or `failed`
 *   DELETE /tasks/ID          ends it; what runs in the machine is killed, and the machine is gone
 *
 * A browser that loses its connection comes back by itself and says what it had last (`Last-Event-ID`): it misses nothing.
 * Interrupted, the back end leaves no machine behind.
 *
 * Usage: 05_backend [PORT], with a server running (`make serve`). Default: port 8080 of this host alone; 0 takes a free one.
 */

import { randomUUID } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { ForkyardError, Sandbox } from 'forkyard';

/** Tasks that run at once, and ended ones whose output can still be fetched. */
const MAX_RUNNING = 4;
const MAX_ENDED = 100;
/** Bytes of a request, characters of a task's output, and milliseconds that a program may run. */
const MAX_REQUEST = 64 * 1024;
const MAX_OUTPUT = 1024 * 1024;
const TIMEOUT_MS = 60_000;
/** Proxies cut what is silent for longer. */
const KEEP_ALIVE_MS = 15_000;

/** What a browser is told. */
interface TaskEvent {
  type: 'output' | 'end' | 'failed';
  data: object;
}

/** A request that cannot be answered. */
class Refusal extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/** A program on its way through a machine, and all that was said of it. */
class Task {
  readonly id = randomUUID();
  readonly events: TaskEvent[] = [];
  readonly news = new EventEmitter().setMaxListeners(0);
  readonly #cancel = new AbortController();
  isOver = false;

  /** Runs the program to its end; what goes wrong is told like everything else. */
  async run(program: string): Promise<void> {
    try {
      this.#tell('end', await this.#runInMachine(program));
    } catch (error) {
      this.#tell('failed', { message: error instanceof Error ? error.message : String(error) });
    }
  }

  async #runInMachine(program: string): Promise<object> {
    const { signal } = this.#cancel;
    await using machine = await Sandbox.create({ memoryMb: 256, signal });
    const args = ['-u', '-c', program];
    const process = await machine.start({ cmd: 'python', args, timeoutMs: TIMEOUT_MS, signal });
    let size = 0;
    for await (const { stream, text } of process.output({ signal })) {
      size += text.length;
      if (size > MAX_OUTPUT) {
        throw new Error(`the program printed more than ${MAX_OUTPUT} characters`);
      }
      this.#tell('output', { stream, text });
    }
    const { exitCode, signal: killedBy, timedOut } = await process.wait({ signal });
    return { exitCode, killedBy, timedOut };
  }

  #tell(type: TaskEvent['type'], data: object): void {
    this.events.push({ type, data });
    this.isOver = type !== 'output';
    this.news.emit('event');
  }

  /** Ends the program and its machine. */
  end(): void {
    this.#cancel.abort(new Error('the task was ended'));
  }

  /** Sends a browser what comes after the events that it has, and then whatever comes. A slow browser is waited for. */
  async stream(next: number, response: ServerResponse, signal: AbortSignal): Promise<void> {
    while (!(this.isOver && next >= this.events.length)) {
      const event = this.events[next];
      if (event === undefined) {
        await once(this.news, 'event', { signal });
        continue;
      }
      next += 1;
      const text = `id: ${next}\nevent: ${event.type}\ndata: ${JSON.stringify(event.data)}\n\n`;
      if (!response.write(text)) {
        await once(response, 'drain', { signal });
      }
    }
    response.end();
  }
}

const tasks = new Map<string, Task>();
const running = new Set<Promise<void>>();

/** Takes a program. The oldest ended tasks give way. */
async function begin(request: IncomingMessage): Promise<Task> {
  // A page of another origin cannot send this type without being asked first whether it may.
  if (request.headers['content-type'] !== 'application/json') {
    throw new Refusal(415, 'send the program as application/json: {"program": "print(1)"}');
  }
  const { program } = Object(await readJson(request)) as { program?: unknown };
  if (typeof program !== 'string') {
    throw new Refusal(400, '"program" must be text: {"program": "print(1)"}');
  }
  if (running.size >= MAX_RUNNING) {
    throw new Refusal(429, `${MAX_RUNNING} tasks run already; try again in a moment`);
  }
  const task = new Task();
  tasks.set(task.id, task);
  const ended = [...tasks.values()].filter(({ isOver }) => isOver);
  for (const { id } of ended.slice(0, Math.max(0, ended.length - MAX_ENDED))) {
    tasks.delete(id);
  }
  const done = task.run(program).finally(() => running.delete(done));
  running.add(done);
  return task;
}

async function readJson(request: IncomingMessage): Promise<unknown> {
  const pieces: Buffer[] = [];
  let size = 0;
  for await (const piece of request as AsyncIterable<Buffer>) {
    size += piece.length;
    if (size > MAX_REQUEST) {
      throw new Refusal(413, `a request may have ${MAX_REQUEST} bytes`);
    }
    pieces.push(piece);
  }
  try {
    return JSON.parse(Buffer.concat(pieces).toString());
  } catch {
    throw new Refusal(400, 'this is no JSON');
  }
}

/** Streams a task's events until its end or the browser's. */
async function showEvents(task: Task, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const had = Number(request.headers['last-event-id'] ?? 0);
  if (!Number.isSafeInteger(had) || had < 0) {
    throw new Refusal(400, 'Last-Event-ID must be a number that an event came with');
  }
  const gone = new AbortController();
  response.on('close', () => gone.abort());
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  const keepAlive = setInterval(() => response.write(': still here\n\n'), KEEP_ALIVE_MS);
  try {
    await task.stream(had, response, gone.signal);
  } catch (error) {
    if (!gone.signal.aborted) {
      throw error;
    }
  } finally {
    clearInterval(keepAlive);
  }
}

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const [, folder, id, events, ...rest] = (request.url ?? '/').split('?', 1)[0]?.split('/') ?? [];
  const route = `${request.method} /${folder}${id ? '/ID' : ''}${events ? `/${events}` : ''}${rest.join('/')}`;
  if (route === 'GET /') {
    response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' }).end(PAGE);
    return;
  }
  if (route === 'POST /tasks') {
    const task = await begin(request);
    response.writeHead(202, { 'content-type': 'application/json' }).end(JSON.stringify({ id: task.id }));
    return;
  }
  const task = tasks.get(id ?? '');
  if (task !== undefined && route === 'GET /tasks/ID/events') {
    await showEvents(task, request, response);
  } else if (task !== undefined && route === 'DELETE /tasks/ID') {
    task.end();
    response.writeHead(204).end();
  } else {
    throw new Refusal(404, 'there is nothing here');
  }
}

/** Answers what failed, as far as the browser can still be told. */
function refuse(error: unknown, response: ServerResponse): void {
  const refusal = error instanceof Refusal ? error : new Refusal(500, 'the back end failed');
  if (refusal !== error) {
    console.error(error);
  }
  if (response.headersSent) {
    response.destroy();
    return;
  }
  // What is left of the request is not read.
  const headers = { 'content-type': 'application/json', connection: 'close' };
  response.writeHead(refusal.status, headers).end(JSON.stringify({ error: refusal.message }));
}

const PAGE = `<!doctype html>
<title>Forkyard back end</title>
<form><textarea name="program" rows="8" cols="60">import platform, time

for number in range(5):
    print(platform.node(), number)
    time.sleep(1)
</textarea><p><button>Run in a machine of its own</button></form>
<pre></pre>
<script>
  const form = document.querySelector('form');
  const shown = document.querySelector('pre');
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    shown.textContent = '';
    const body = JSON.stringify({ program: form.program.value });
    const answer = await fetch('/tasks', { method: 'POST', headers: { 'content-type': 'application/json' }, body });
    const { id, error } = await answer.json();
    if (error) {
      shown.textContent = error;
      return;
    }
    const events = new EventSource('/tasks/' + id + '/events');
    events.addEventListener('output', ({ data }) => shown.append(JSON.parse(data).text));
    for (const last of ['end', 'failed']) {
      events.addEventListener(last, ({ data }) => {
        shown.append('\\n' + last + ' ' + data);
        events.close();
      });
    }
  });
</script>
`;

async function main(): Promise<void> {
  const server = createServer((request, response) => {
    answer(request, response).catch((error: unknown) => refuse(error, response));
  });
  server.listen(Number(process.argv[2] ?? 8080), '127.0.0.1');
  await once(server, 'listening');
  console.log(`open http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  await Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')]);
  for (const task of tasks.values()) {
    task.end();
  }
  await Promise.all(running);
  server.close();
  server.closeAllConnections();
  console.log('all machines are gone');
}

try {
  await main();
} catch (error) {
  if (!(error instanceof ForkyardError)) {
    throw error;
  }
  console.error(`${error.name}: ${error.message}`);
  process.exitCode = 1;
}
