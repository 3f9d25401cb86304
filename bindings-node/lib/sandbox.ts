import type * as native from '../native.js';
import type {
  CheckpointRequest,
  CommandRequest,
  CreateRequest,
  ForkRequest,
  ManagementRequest,
  NetworkEvents,
  NetworkInfo,
  NetworkRequest,
  ProcessInfo,
  PtyRequest,
  SandboxEvents,
  SandboxInfo,
  SandboxStatus,
  SnapshotInfo,
} from '../native.js';
import { bytes, type CallOptions, call, callSync } from './call.js';
import { type Client, defaultClient } from './client.js';
import { CommandFailed, CommandTimeout } from './errors.js';
import { EventStream, type EventsOptions, type FollowOptions } from './events.js';
import { Files } from './files.js';
import { Ports } from './ports.js';
import { ExecResult, Process } from './process.js';
import { Pty } from './pty.js';

/** Which server to ask. */
export interface ServerOptions extends CallOptions {
  /** Default: one found by the environment ({@link ClientOptions}). */
  client?: Client | undefined;
}

/** What a machine is to be, and what it may reach. */
export interface CreateOptions extends CreateRequest, NetworkRequest, ServerOptions {}

/** What twins of a machine are to be. Where nothing is said of what they may reach, they may reach what the machine may. */
export interface ForkOptions extends ForkRequest, NetworkRequest, CallOptions {}

/** Which of a machine's network events to answer. */
export interface NetworkEventsOptions extends CallOptions {
  /** Only what came after the events that had it ({@link NetworkEvents}). Default: all that is kept. */
  cursor?: string | undefined;
  /**
   * Milliseconds to wait for the next event where there is none yet, at most a minute and half of the client's time-out.
   * Default: 0.
   */
  waitMs?: number | undefined;
}

/** A program and how to run it to its end. */
export interface ExecOptions extends CommandRequest, CallOptions {
  /** What it reads from standard input. Default: nothing. */
  stdin?: string | Uint8Array | undefined;
  /** Whether to fail with {@link CommandFailed} where it does not exit with 0. Default: false. */
  check?: boolean | undefined;
  /** Called with each piece of standard output as it comes, as text; what it returns is awaited before the next. */
  onStdout?: ((text: string) => unknown) | undefined;
  /** The same for standard error. */
  onStderr?: ((text: string) => unknown) | undefined;
  /** Whether to kill it if the call is aborted. Default: true. */
  killOnAbort?: boolean | undefined;
}

/** A program, how to start it, and how it is kept running. */
export interface StartOptions extends CommandRequest, ManagementRequest, CallOptions {
  /** What it reads from standard input. Default: nothing. */
  stdin?: string | Uint8Array | undefined;
  /** Leaves standard input open for `Process.write`. Default: false. */
  openStdin?: boolean | undefined;
}

/** A program and what terminal to start it on. */
export interface PtyOptions extends Omit<CommandRequest, 'cmd'>, PtyRequest, CallOptions {
  /** The program. Default: the account's shell. */
  cmd?: string | undefined;
}

/**
 * A machine of one's own: an isolated microVM that runs commands and keeps files until it is destroyed. Leaving the block of
 * an `await using` destroys it.
 */
export class Sandbox extends Files implements AsyncDisposable {
  /** Its TCP ports. */
  readonly ports: Ports;
  /** @internal */
  readonly native: native.Sandbox;
  #record: SandboxInfo;

  /** @internal */
  constructor(sandbox: native.Sandbox) {
    super();
    this.native = sandbox;
    this.ports = new Ports(sandbox);
    this.#record = sandbox.record;
  }

  /**
   * Makes a machine and waits until it runs; where the host has no room, waits for it for two minutes. Aborted, it leaves
   * no machine behind.
   *
   * Fails with {@link InvalidArgument} where a value is out of range, or CPUs or memory are others than a memory snapshot's;
   * {@link ImageNotFound}, {@link SnapshotNotFound}, {@link SnapshotCorrupt}; {@link NoCapacity} where the host had no room
   * in time; {@link QuotaExceeded} where the key may have no more machines.
   */
  static async create(options: CreateOptions = {}): Promise<Sandbox> {
    const { client = defaultClient(), signal } = options;
    return new Sandbox(await call(signal, (cancel) => client.native.create(options, options, cancel)));
  }

  /**
   * The machine of this name, running: the one that is there, resumed if it is suspended, or else a new one. However many
   * programs ask at once, one machine is made and all get it.
   *
   * One that is there is taken as it is: the options say only what a new one is made of, and are not compared with it (`info`
   * says what it is). Aborted, this ends no machine, since others may have it already. Fails as `create` does.
   */
  static async getOrCreate(name: string, options: Omit<CreateOptions, 'name'> = {}): Promise<Sandbox> {
    const { client = defaultClient(), signal } = options;
    const found = await call(signal, (cancel) => client.native.getOrCreate(name, options, options, cancel));
    return new Sandbox(found);
  }

  /**
   * A machine that is there already, by its name or id. Fails with {@link NotFound} where none that runs has this name, or
   * none this id.
   */
  static async connect(nameOrId: string, options: ServerOptions = {}): Promise<Sandbox> {
    const { client = defaultClient(), signal } = options;
    return new Sandbox(await call(signal, (cancel) => client.native.connect(nameOrId, cancel)));
  }

  /** Deletes a snapshot; machines that came from it go on. */
  static async deleteSnapshot(snapshotId: string, options: ServerOptions = {}): Promise<void> {
    const { client = defaultClient(), signal } = options;
    await client.deleteSnapshot(snapshotId, { signal });
  }

  /** Its id, `sbx_…`. */
  get sandboxId(): string {
    return this.#record.sandboxId;
  }

  /** Its name, if it has one. */
  get name(): string | undefined {
    return this.#record.name;
  }

  /** Where it stood when the server was last asked. */
  get status(): SandboxStatus {
    return this.#record.status;
  }

  /** Its record as it is now. */
  info(options: CallOptions = {}): Promise<SandboxInfo> {
    return this.#recorded(options, (cancel) => this.native.info(cancel));
  }

  /**
   * Gives the machine another idle time-out, longer or shorter: milliseconds without any call, counted from this one on, after
   * which it is terminated or, if it has a name, suspended; rounded up to whole seconds, at most 30 days. A suspended machine
   * stays so. Fails with {@link SandboxLost} where it has ended.
   */
  extendTimeout(timeoutMs: number, options: CallOptions = {}): Promise<SandboxInfo> {
    return this.#recorded(options, (cancel) => this.native.extendTimeout(timeoutMs, cancel));
  }

  /** Ends it and waits for its end; ending one that has ended answers how it ended. */
  destroy(options: CallOptions = {}): Promise<SandboxInfo> {
    return this.#recorded(options, (cancel) => this.native.terminate(cancel));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.destroy();
  }

  /**
   * Freezes the machine, which goes on running, and waits until the snapshot is on disk. Any number of machines are made of
   * it with `create({ snapshotId })`. Fails with {@link NoSpace} where the host's disk, or the project's budget for
   * snapshots, is full; nothing is left of the attempt then.
   */
  checkpoint(options: CheckpointRequest & CallOptions = {}): Promise<SnapshotInfo> {
    return call(options.signal, (cancel) => this.native.checkpoint(options, cancel));
  }

  /**
   * Starts twins of the machine, each with its memory, its processes and its disk, and waits until they run: 1 to 1,000 of
   * them. Aborted, it leaves none behind. Fails with {@link NoCapacity} where the host has no room for all of them, and with
   * {@link QuotaExceeded} where the key may have no more machines.
   */
  async fork(count = 1, options: ForkOptions = {}): Promise<Sandbox[]> {
    const forks = await call(options.signal, (cancel) => this.native.fork(count, options, options, cancel));
    return forks.map((fork) => new Sandbox(fork));
  }

  /** What the machine may reach, and what went through. */
  network({ signal }: CallOptions = {}): Promise<NetworkInfo> {
    return call(signal, (cancel) => this.native.network(cancel));
  }

  /**
   * Has the machine reach something else from now on: what is given here, in place of all that was given before. Connections
   * that it may no longer have are reset before this answers. A suspended machine finds it when it is resumed.
   *
   * Fails with {@link InvalidArgument} where a rule is none, or a number is out of range, and with {@link FailedPrecondition}
   * where the machine goes on from a snapshot of before machines had a network.
   */
  updateNetwork(options: NetworkRequest & CallOptions = {}): Promise<NetworkInfo> {
    return call(options.signal, (cancel) => this.native.updateNetwork(options, cancel));
  }

  /**
   * What happened on the machine's network, oldest first: the newest 1,000 events, or those after a cursor. The server keeps
   * them in its memory, until it ends. Fails with {@link InvalidArgument} where the cursor is none.
   */
  networkEvents({ cursor, waitMs = 0, signal }: NetworkEventsOptions = {}): Promise<NetworkEvents> {
    return call(signal, (cancel) => this.native.networkEvents(cursor, waitMs, cancel));
  }

  /**
   * What happened to the machine from its making to its end, oldest first: all that is kept, or what came after a cursor. The newest
   * 200 events of its life are kept, also when the server is started anew, and the newest 1,000 of its network, in the server's
   * memory. Fails with {@link InvalidArgument} where the cursor is none.
   */
  events({ cursor, waitMs = 0, signal }: EventsOptions = {}): Promise<SandboxEvents> {
    return call(signal, (cancel) => this.native.events(cursor, waitMs, cancel));
  }

  /**
   * The machine's events as they happen, until its end, from after a cursor or, without one, from the oldest that is kept. The
   * signal ends iterating, which then rejects with its reason.
   */
  followEvents({ cursor, signal }: FollowOptions = {}): EventStream {
    return new EventStream(
      callSync(() => this.native.followEvents(cursor)),
      signal,
    );
  }

  /**
   * Puts the machine on disk: it holds no memory and no processor until it is resumed, by `resume` or, unless it was made
   * otherwise, by the next call to it from any program.
   */
  suspend(options: CallOptions = {}): Promise<SandboxInfo> {
    return this.#recorded(options, (cancel) => this.native.suspend(cancel));
  }

  /** Lets a suspended machine go on where it stood; where the host has no room, waits for it for two minutes. */
  resume(options: CallOptions = {}): Promise<SandboxInfo> {
    return this.#recorded(options, (cancel) => this.native.resume(cancel));
  }

  /** Puts the machine back to where a snapshot stands, under its own id and name; what it did since is gone. */
  restore(snapshotId: string, options: CallOptions = {}): Promise<SandboxInfo> {
    return this.#recorded(options, (cancel) => this.native.restore(snapshotId, cancel));
  }

  /**
   * Runs a program to its end. However often the connection is cut, it runs once, and all of its output arrives, up to
   * 128 MiB: `start` has no limit.
   *
   * Fails with {@link CommandTimeout} where its time was up, {@link NotFound} where there is no such program, folder or user
   * in the machine, and {@link SandboxLost} where the machine is gone.
   */
  async exec(options: ExecOptions): Promise<ExecResult> {
    const streams = options.onStdout !== undefined || options.onStderr !== undefined;
    const result = new ExecResult(streams ? await this.#execStreamed(options) : await this.#exec(options));
    if (result.timedOut) {
      throw new CommandTimeout(result);
    }
    if (options.check && !result.ok) {
      throw new CommandFailed(result);
    }
    return result;
  }

  #exec(options: ExecOptions): Promise<native.CommandResult> {
    const { stdin, killOnAbort = true, signal } = options;
    const input = stdin === undefined ? undefined : bytes(stdin);
    return call(signal, (cancel) => this.native.run(options, input, killOnAbort, cancel));
  }

  async #execStreamed(options: ExecOptions): Promise<native.CommandResult> {
    const { onStdout, onStderr, killOnAbort = true, signal } = options;
    const listeners = { stdout: onStdout, stderr: onStderr };
    const pieces: Record<'stdout' | 'stderr', Uint8Array[]> = { stdout: [], stderr: [] };
    const process = await this.#start(options, {});
    try {
      for await (const { stream, data, text } of process.output({ signal })) {
        pieces[stream].push(data);
        if (text !== '') {
          await listeners[stream]?.(text);
        }
      }
    } catch (error) {
      // Also when a listener fails: nobody is left to hear the rest.
      if (killOnAbort) {
        process.native.killInBackground();
      }
      throw error;
    }
    const { exitCode, signal: ended, oomKilled, timedOut, durationMs } = await process.wait({ signal });
    return {
      processId: process.id,
      exitCode,
      signal: ended,
      stdout: Buffer.concat(pieces.stdout),
      stderr: Buffer.concat(pieces.stderr),
      oomKilled,
      timedOut,
      durationMs,
    };
  }

  /**
   * Starts a program and leaves it running. Its output is kept in a ring of 3 MiB until somebody reads it, over all its restarts.
   * Aborted before it answers, it kills the program again.
   *
   * Fails with {@link AlreadyExists} where a process of this name has not ended.
   */
  start(options: StartOptions): Promise<Process> {
    return this.#start(options, options);
  }

  async #start(options: Omit<StartOptions, keyof ManagementRequest>, management: ManagementRequest): Promise<Process> {
    const { stdin, openStdin = false, signal } = options;
    const input = stdin === undefined ? undefined : bytes(stdin);
    return new Process(
      await call(signal, (cancel) => this.native.start(options, management, input, openStdin, cancel)),
    );
  }

  /**
   * Starts a program on a terminal, which it has as its input and both its outputs. Aborted before it answers, it kills the
   * program again.
   *
   * Fails with {@link InvalidArgument} where a value is out of range, {@link NotFound} where there is no such program, folder or
   * user in the machine, and {@link NoCapacity} where 32 terminals run in it already.
   */
  async pty(options: PtyOptions = {}): Promise<Pty> {
    const command = { ...options, cmd: options.cmd ?? '' };
    return new Pty(await call(options.signal, (cancel) => this.native.pty(command, options, cancel)), true);
  }

  /**
   * A terminal that is there already, by its id, also one that a fork has of its original. What it showed comes first, as far
   * as it is kept: the last MiB. Whether it is there shows with the first call.
   */
  attachPty(ptyId: string): Pty {
    return new Pty(
      callSync(() => this.native.process(ptyId)),
      false,
    );
  }

  /** A process that is there already, its output from the oldest that is kept. */
  process(processId: string): Process {
    return new Process(callSync(() => this.native.process(processId)));
  }

  /** All processes that run or ended lately, oldest first. */
  processes({ signal }: CallOptions = {}): Promise<ProcessInfo[]> {
    return call(signal, (cancel) => this.native.processes(cancel));
  }

  async #recorded(
    { signal }: CallOptions,
    begin: (cancel?: native.Cancel) => Promise<SandboxInfo>,
  ): Promise<SandboxInfo> {
    this.#record = await call(signal, begin);
    return this.#record;
  }
}
