/** The calls that the suite asks for, through the public API. */

import { once } from 'node:events';
import { buffer } from 'node:stream/consumers';
import {
  type Client,
  type EventStream,
  type Forward,
  type Process,
  type Pty,
  Sandbox,
  type Tunnel,
  type Watch,
} from 'forkyard';
import { managed } from './managed.js';
import { newClient, swarm } from './surface.js';
import {
  asBytes,
  failure,
  fileInfo,
  imageInfo,
  type Json,
  options,
  raw,
  record,
  result,
  retention,
  sandboxInfo,
  snapshotInfo,
} from './values.js';

/** What calls answered with that can be called on, by handle. */
const objects = new Map<string, unknown>();

/** Keeps an object, and adds its handle to what is said of it. */
function keep(object: unknown, said: Json): Json {
  const handle = `h${objects.size}`;
  objects.set(handle, object);
  return { ...said, $handle: handle };
}

/** An object that was kept. */
export function kept(handle: string | undefined): Json {
  return handle === undefined ? undefined : objects.get(handle);
}

function described(sandbox: Sandbox): Json {
  return { sandbox_id: sandbox.sandboxId, name: sandbox.name, status: sandbox.status };
}

function command({ stdin, ...args }: Json, signal: AbortSignal): Json {
  return { ...options(args), ...(stdin === undefined ? {} : { stdin: raw(stdin) }), signal };
}

type Call<T> = (on: T, args: Json, signal: AbortSignal) => Promise<Json>;

const clients: Record<string, Call<Client>> = {
  open: async (_, args) => keep(newClient(options(args)), {}),
  in_scope: async (_, args, signal) => record(await newClient(options(args)).serverInfo({ signal })),
  create: async (client, args, signal) => {
    const sandbox = await Sandbox.create({ ...options(args), client, signal });
    return keep(sandbox, described(sandbox));
  },
  create_in_scope: async (client, { run, ...args }, signal) => {
    const sandbox = await Sandbox.create({ ...options(args), client, signal });
    try {
      return { ...result(await sandbox.exec(command(run, signal))), sandbox_id: sandbox.sandboxId };
    } finally {
      // What `await using` does, which this version of Node.js cannot read.
      await sandbox[Symbol.asyncDispose]();
    }
  },
  get_or_create: async (client, { name, ...args }, signal) => {
    const sandbox = await Sandbox.getOrCreate(name, { ...options(args), client, signal });
    return keep(sandbox, described(sandbox));
  },
  connect: async (client, { name_or_id }, signal) => {
    const sandbox = await Sandbox.connect(name_or_id, { client, signal });
    return keep(sandbox, described(sandbox));
  },
  get: async (client, { id }, signal) => sandboxInfo(await client.get(id, { signal })),
  list: async (client, _, signal) => (await client.list({ signal })).map(sandboxInfo),
  find: async (client, args, signal) => (await client.list({ ...options(args), signal })).map(sandboxInfo),
  iter: async (client, { filter = {}, take }, signal) => {
    const found: Json[] = [];
    for await (const machine of client.iter({ ...options(filter), signal })) {
      found.push(sandboxInfo(machine));
      if (found.length === take) {
        break;
      }
    }
    return found;
  },
  terminate: async (client, { id }, signal) => sandboxInfo(await client.destroy(id, { signal })),
  images: async (client, _, signal) => (await client.images({ signal })).map(imageInfo),
  server_info: async (client, _, signal) => record(await client.serverInfo({ signal })),
  create_key: async (client, args, signal) => record(await client.createKey(options(args), { signal })),
  list_keys: async (client, _, signal) => record(await client.listKeys({ signal })),
  revoke_key: async (client, { id }, signal) => client.revokeKey(id, { signal }),
  snapshot: async (client, { id }, signal) => snapshotInfo(await client.snapshot(id, { signal })),
  snapshots: async (client, _, signal) => (await client.snapshots({ signal })).map(snapshotInfo),
  delete_snapshot: async (client, { id }, signal) => client.deleteSnapshot(id, { signal }),
  retention: async (client, _, signal) => retention(await client.retention({ signal })),
  set_retention: async (client, args, signal) => retention(await client.setRetention(options(args), { signal })),
  create_pool: async (client, args, signal) => record(await client.createPool(options(args), { signal })),
  pool: async (client, { id }, signal) => record(await client.pool(id, { signal })),
  pools: async (client, _, signal) => record(await client.pools({ signal })),
  change_pool: async (client, { id, spec }, signal) => record(await client.changePool(id, options(spec), { signal })),
  delete_pool: async (client, { id }, signal) => client.deletePool(id, { signal }),
  swarm: async (client, { tasks, ...args }, signal) => {
    let told = 0;
    const job = async (sandbox: Sandbox, script: string, signal: AbortSignal) =>
      (await sandbox.exec({ cmd: 'sh', args: ['-c', script], check: true, signal })).stdout;
    const onProgress = ({ succeeded, failed }: { succeeded: number; failed: number }) => {
      told = succeeded + failed;
    };
    const report = await swarm(job, tasks as string[], { ...options(args), client, signal, onProgress });
    const { succeeded, failed, cancelled, results } = report;
    const said = report.tasks.map(({ index, status, attempts, result, error }) => ({
      index,
      status,
      attempts: attempts.length,
      result,
      error: error === undefined ? undefined : failure(error),
    }));
    return { succeeded, failed, cancelled, results, told, tasks: said };
  },
};

const sandboxes: Record<string, Call<Sandbox>> = {
  record: async (sandbox) => described(sandbox),
  info: async (sandbox, _, signal) => sandboxInfo(await sandbox.info({ signal })),
  in_scope: async (sandbox, args, signal) => {
    try {
      return result(await sandbox.exec(command(args, signal)));
    } finally {
      await sandbox[Symbol.asyncDispose]();
    }
  },
  terminate: async (sandbox, _, signal) => sandboxInfo(await sandbox.destroy({ signal })),
  checkpoint: async (sandbox, args, signal) => snapshotInfo(await sandbox.checkpoint({ ...options(args), signal })),
  delete_snapshot: async (_, { client, id }, signal) => Sandbox.deleteSnapshot(id, { client: kept(client), signal }),
  fork: async (sandbox, { count, ...args }, signal) => {
    const forks = await sandbox.fork(count, { ...options(args), signal });
    return forks.map((fork) => keep(fork, described(fork)));
  },
  suspend: async (sandbox, _, signal) => sandboxInfo(await sandbox.suspend({ signal })),
  resume: async (sandbox, _, signal) => sandboxInfo(await sandbox.resume({ signal })),
  extend_timeout: async (sandbox, { timeout_secs }, signal) =>
    sandboxInfo(await sandbox.extendTimeout(timeout_secs * 1000, { signal })),
  restore: async (sandbox, { id }, signal) => sandboxInfo(await sandbox.restore(id, { signal })),
  network: async (sandbox, _, signal) => record(await sandbox.network({ signal })),
  update_network: async (sandbox, args, signal) => record(await sandbox.updateNetwork({ ...options(args), signal })),
  network_events: async (sandbox, args, signal) => record(await sandbox.networkEvents({ ...options(args), signal })),
  events: async (sandbox, args, signal) => record(await sandbox.events({ ...options(args), signal })),
  follow_events: async (sandbox, { cursor }) => keep(sandbox.followEvents({ cursor }), {}),
  follow_events_in_scope: async (sandbox, _, signal) => {
    const events = sandbox.followEvents({ signal });
    try {
      return record((await events[Symbol.asyncIterator]().next()).value);
    } finally {
      await events[Symbol.asyncDispose]();
    }
  },
  run: async (sandbox, args, signal) => result(await sandbox.exec(command(args, signal))),
  run_streamed: async (sandbox, args, signal) => {
    const heard = { stdout: '', stderr: '' };
    const onStdout = (text: string) => {
      heard.stdout += text;
    };
    const onStderr = (text: string) => {
      heard.stderr += text;
    };
    const ended = await sandbox.exec({ ...command(args, signal), onStdout, onStderr });
    return { ...result(ended), heard };
  },
  start: async (sandbox, { stdin, ...args }, signal) => {
    const process = await sandbox.start({ ...managed(args), openStdin: stdin ?? false, signal });
    return keep(process, { id: process.id });
  },
  process: async (sandbox, { id }) => {
    const process = sandbox.process(id);
    return keep(process, { id: process.id });
  },
  processes: async (sandbox, _, signal) => record(await sandbox.processes({ signal })),
  pty: async (sandbox, args, signal) => {
    const pty = await sandbox.pty({ ...options(args), signal });
    return keep(pty, { id: pty.id });
  },
  attach_pty: async (sandbox, { id }) => {
    const pty = sandbox.attachPty(id);
    return keep(pty, { id: pty.id });
  },
  pty_in_scope: async (sandbox, args, signal) => {
    const pty = await sandbox.pty({ ...options(args), signal });
    await pty[Symbol.asyncDispose]();
    return { id: pty.id };
  },
};

const files: Record<string, Call<Sandbox>> = {
  read: async (sandbox, { path, offset, length }, signal) =>
    asBytes(await sandbox.readFile(raw(path), { offset, length, signal })),
  read_text: async (sandbox, { path }, signal) => sandbox.readText(raw(path), { signal }),
  write: async (sandbox, { path, data, ...args }, signal) =>
    fileInfo(await sandbox.writeFile(raw(path), raw(data), { ...args, signal })),
  list: async (sandbox, { path }, signal) => (await sandbox.list(raw(path), { signal })).map(fileInfo),
  stat: async (sandbox, { path }, signal) => fileInfo(await sandbox.stat(raw(path), { signal })),
  exists: async (sandbox, { path }, signal) => sandbox.exists(raw(path), { signal }),
  make_dir: async (sandbox, { path }, signal) => fileInfo(await sandbox.mkdir(raw(path), { signal })),
  move: async (sandbox, { source, target, ...args }, signal) =>
    fileInfo(await sandbox.move(raw(source), raw(target), { ...args, signal })),
  remove: async (sandbox, { path, ...args }, signal) => sandbox.remove(raw(path), { ...args, signal }),
  upload: async (sandbox, { local, remote, ...args }, signal) => {
    let told = 0;
    const onProgress = (bytes: number) => {
      told = bytes;
    };
    const info = await sandbox.upload(local, raw(remote), { ...args, onProgress, signal });
    return { ...fileInfo(info), told };
  },
  download: async (sandbox, { remote, local }, signal) => {
    let told = 0;
    const onProgress = (bytes: number) => {
      told = bytes;
    };
    const size = await sandbox.download(raw(remote), local, { onProgress, signal });
    return { size, told };
  },
  upload_dir: async (sandbox, { local, remote }, signal) => {
    let told = 0;
    const onProgress = (bytes: number) => {
      told = bytes;
    };
    return { ...record(await sandbox.uploadDir(local, raw(remote), { onProgress, signal })), told };
  },
  download_dir: async (sandbox, { remote, local }, signal) => {
    let told = 0;
    const onProgress = (bytes: number) => {
      told = bytes;
    };
    return { ...record(await sandbox.downloadDir(raw(remote), local, { onProgress, signal })), told };
  },
  watch: async (sandbox, { path, ...args }, signal) => {
    return keep(await sandbox.watch(raw(path), { ...args, signal }), {});
  },
  watch_in_scope: async (sandbox, { path, make }, signal) => {
    const watch = await sandbox.watch(raw(path), { signal });
    try {
      await sandbox.mkdir(make, { signal });
      return record((await watch[Symbol.asyncIterator]().next()).value);
    } finally {
      await watch[Symbol.asyncDispose]();
    }
  },
};

/** Reads so many events, or all until the end. */
async function told<T>(
  feed: { iter(options: { signal: AbortSignal }): AsyncIterable<T> },
  take: number | undefined,
  signal: AbortSignal,
) {
  const said: Json[] = [];
  for await (const event of feed.iter({ signal })) {
    said.push(record(event));
    if (said.length === take) {
      break;
    }
  }
  return said;
}

const watches: Record<string, Call<Watch>> = {
  read: async (watch, { take }, signal) => told(watch, take, signal),
  close: async (watch) => watch.close(),
};

const followed: Record<string, Call<EventStream>> = {
  read: async (events, { take }, signal) => told(events, take, signal),
  close: async (events) => events.close(),
};

const ports: Record<string, Call<Sandbox>> = {
  list: async ({ ports }, _, signal) => record(await ports.list({ signal })),
  wait: async ({ ports }, { port, ...args }, signal) => ports.wait(port, { ...options(args), signal }),
  url: async ({ ports }, { port }) => ports.url(port),
  preview_url: async ({ ports }, { port, ...args }, signal) => ports.previewUrl(port, { ...options(args), signal }),
  connect: async ({ ports }, { port }, signal) => keep(await ports.connect(port, { signal }), {}),
  forward: async ({ ports }, { port }, signal) => {
    const forward = await ports.forward(port, { signal });
    return keep(forward, { host: forward.host, port: forward.port });
  },
  exchange_in_scope: async ({ ports }, { port, data }, signal) => {
    const forward = await ports.forward(port, { signal });
    const tunnel = await ports.connect(port, { signal });
    try {
      tunnel.end(raw(data));
      return { heard: asBytes(await buffer(tunnel)), host: forward.host, port: forward.port };
    } finally {
      await tunnel[Symbol.asyncDispose]();
      await forward[Symbol.asyncDispose]();
    }
  },
};

const forwards: Record<string, Call<Forward>> = {
  close: async (forward, _, signal) => forward.close({ signal }),
};

/** Has a stream do something, and waits for it. */
function done(begin: (callback: (error?: Error | null) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => begin((error) => (error ? reject(error) : resolve())));
}

/** What a stream brings next; empty at its end. */
async function piece(tunnel: Tunnel, signal: AbortSignal): Promise<Uint8Array> {
  for (;;) {
    const data: Buffer | null = tunnel.read();
    if (data !== null || tunnel.readableEnded) {
      return data ?? Buffer.alloc(0);
    }
    await Promise.race([once(tunnel, 'readable', { signal }), once(tunnel, 'end', { signal })]);
  }
}

const tunnels: Record<string, Call<Tunnel>> = {
  read: async (tunnel, _, signal) => asBytes(await piece(tunnel, signal)),
  read_all: async (tunnel) => asBytes(await buffer(tunnel)),
  write: async (tunnel, { data }) => done((callback) => tunnel.write(raw(data), callback)),
  close_write: async (tunnel) => done((callback) => tunnel.end(callback)),
  close: async (tunnel) => {
    tunnel.destroy();
    if (!tunnel.closed) {
      await once(tunnel, 'close');
    }
  },
};

const processes: Record<string, Call<Process>> = {
  id: async (process) => ({ id: process.id }),
  read: async (process, { until }, signal) => {
    const text = { stdout: '', stderr: '' };
    const pieces: Uint8Array[] = [];
    // The loop's own way, unless it is to be left early by a signal.
    for await (const output of until === undefined ? process.output({ signal }) : process) {
      text[output.stream] += output.text;
      if (output.stream === 'stdout') {
        pieces.push(output.data);
      }
      if (until !== undefined && text.stdout.includes(until)) {
        break;
      }
    }
    const { exit, dropped } = process;
    return { ...text, stdout_bytes: asBytes(Buffer.concat(pieces)), dropped, exit: record(exit) };
  },
  wait: async (process, _, signal) => record(await process.wait({ signal })),
  info: async (process, _, signal) => record(await process.info({ signal })),
  send_signal: async (process, { signal: number }, signal) => process.sendSignal(number, { signal }),
  kill: async (process, _, signal) => process.kill({ signal }),
  write_stdin: async (process, { data }, signal) => process.write(raw(data), { signal }),
  close_stdin: async (process, _, signal) => process.closeStdin({ signal }),
};

const terminals: Record<string, Call<Pty>> = {
  id: async (pty) => ({ id: pty.id }),
  read: async (pty, { until }, signal) => {
    const pieces: Uint8Array[] = [];
    const shown = () => Buffer.concat(pieces);
    // The loop's own way, unless it is to be left early by a signal.
    for await (const data of until === undefined ? pty.output({ signal }) : pty) {
      pieces.push(data);
      if (until !== undefined && shown().toString().includes(until)) {
        break;
      }
    }
    const { exit, dropped } = pty;
    return { shown: shown().toString(), shown_bytes: asBytes(shown()), dropped, exit: record(exit) };
  },
  wait: async (pty, _, signal) => record(await pty.wait({ signal })),
  write: async (pty, { data }, signal) => pty.write(raw(data), { signal }),
  resize: async (pty, { rows, cols }, signal) => pty.resize(rows, cols, { signal }),
  send_signal: async (pty, { signal: number }, signal) => pty.sendSignal(number, { signal }),
  kill: async (pty, _, signal) => pty.kill({ signal }),
  info: async (pty, _, signal) => record(await pty.info({ signal })),
  detach: async (pty, _, signal) => pty.detach({ signal }),
};

/** All of them, by the suite's names. */
export const CALLS = new Map<string, Call<Json>>();

const NOUNS = {
  client: clients,
  sandbox: sandboxes,
  files,
  process: processes,
  pty: terminals,
  ports,
  forward: forwards,
  tunnel: tunnels,
  watch: watches,
  events: followed,
};
for (const [noun, calls] of Object.entries(NOUNS)) {
  for (const [verb, call] of Object.entries(calls)) {
    CALLS.set(`${noun}.${verb}`, call);
  }
}
