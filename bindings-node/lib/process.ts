import type * as native from '../native.js';
import type { ExitStatus, ProcessInfo } from '../native.js';
import { bytes, type CallOptions, call, decoder, text } from './call.js';
import { ForkyardError } from './errors.js';

/** A piece of output, as it came. */
export interface Output {
  /** Which output it was written to. */
  stream: 'stdout' | 'stderr';
  /** The bytes. Output that the machine no longer held when it was asked for is missing before them. */
  data: Uint8Array;
  /** The bytes as text; a character cut in two by the pieces' border comes whole with the later one. */
  text: string;
}

/** A process in a machine, and a place in its output: iterate to get its pieces as they come. */
export class Process implements AsyncIterable<Output> {
  /** How it ended, once the iteration or `wait` has seen its end. */
  exit: ExitStatus | undefined;
  /** Bytes of output that were lost, since nobody read them while the machine had room for them. */
  dropped = 0;
  /** @internal */
  readonly native: native.Process;
  readonly #decoders = { stdout: decoder(), stderr: decoder() };

  /** @internal */
  constructor(process: native.Process) {
    this.native = process;
  }

  /** The id by which it can be attached to again. */
  get id(): string {
    return this.native.id;
  }

  [Symbol.asyncIterator](): AsyncIterator<Output, undefined> {
    return this.output();
  }

  /**
   * Its output from where it was last read, piece by piece. Nothing is taken from the connection before it is asked for, so
   * a slow reader holds little in memory. Leaving the loop leaves the process running.
   */
  output({ signal }: CallOptions = {}): AsyncIterableIterator<Output, undefined> {
    const next = async (): Promise<IteratorResult<Output, undefined>> => {
      const value = await this.#next(signal);
      return value === undefined ? { done: true, value } : { done: false, value };
    };
    const iterator = { next, [Symbol.asyncIterator]: () => iterator };
    return iterator;
  }

  async #next(signal: AbortSignal | undefined): Promise<Output | undefined> {
    for (;;) {
      const event = await call(signal, (cancel) => this.native.next(cancel));
      if (event === null) {
        return undefined;
      }
      const { stdout, stderr, dropped, exit } = event;
      if (exit !== undefined) {
        this.exit = exit;
        return undefined;
      }
      this.dropped += dropped ?? 0;
      const data = stdout ?? stderr;
      if (data !== undefined) {
        const stream = stdout === undefined ? 'stderr' : 'stdout';
        return { stream, data, text: this.#decoders[stream].decode(data, { stream: true }) };
      }
    }
  }

  /** Waits for its end, passing over what output is left. */
  async wait(options: CallOptions = {}): Promise<ExitStatus> {
    while (this.exit === undefined && (await this.#next(options.signal)) !== undefined) {
      // What it writes is not wanted.
    }
    if (this.exit === undefined) {
      throw new ForkyardError("the process's output was read to its end elsewhere", { code: 'failed_precondition' });
    }
    return this.exit;
  }

  /** How it stands now. */
  info({ signal }: CallOptions = {}): Promise<ProcessInfo> {
    return call(signal, (cancel) => this.native.info(cancel));
  }

  /**
   * Sends a signal, by its number, to its process group; 9 to everything that it started. Fails with
   * {@link FailedPrecondition} where it has ended already.
   */
  async sendSignal(number: number, { signal }: CallOptions = {}): Promise<void> {
    await call(signal, (cancel) => this.native.signal(number, cancel));
  }

  /** Kills it and everything that it started. */
  kill(options: CallOptions = {}): Promise<void> {
    return this.sendSignal(9, options);
  }

  /** Writes to its standard input, and waits until the process has room for it. It must be started with `openStdin`. */
  async write(data: string | Uint8Array, { signal }: CallOptions = {}): Promise<void> {
    await call(signal, (cancel) => this.native.writeStdin(bytes(data), cancel));
  }

  /** Closes its standard input. */
  async closeStdin({ signal }: CallOptions = {}): Promise<void> {
    await call(signal, (cancel) => this.native.closeStdin(cancel));
  }
}

/** How a command ended and what it wrote. */
export class ExecResult {
  /** 0 to 255; null if a signal ended it. */
  readonly exitCode: number | null;
  /** The number of the signal that ended it; null if it exited by itself. */
  readonly signal: number | null;
  /** Standard output as it was written. */
  readonly stdoutBytes: Uint8Array;
  /** Standard error as it was written. */
  readonly stderrBytes: Uint8Array;
  /** The machine's kernel killed it, or a child of it, for want of memory. */
  readonly oomKilled: boolean;
  /** It was killed since its `timeoutMs` had passed. */
  readonly timedOut: boolean;
  /** Wall time from start to end in milliseconds, by the machine's clock. */
  readonly durationMs: number;
  /** The id by which the machine knows it. */
  readonly processId: string;
  #stdout: string | undefined;
  #stderr: string | undefined;

  /** @internal */
  constructor(result: native.CommandResult) {
    this.exitCode = result.exitCode ?? null;
    this.signal = result.signal ?? null;
    this.stdoutBytes = result.stdout;
    this.stderrBytes = result.stderr;
    this.oomKilled = result.oomKilled;
    this.timedOut = result.timedOut;
    this.durationMs = result.durationMs;
    this.processId = result.processId;
  }

  /** Standard output as text: UTF-8, with U+FFFD in place of what is not. */
  get stdout(): string {
    this.#stdout ??= text(this.stdoutBytes);
    return this.#stdout;
  }

  /** Standard error as text: UTF-8, with U+FFFD in place of what is not. */
  get stderr(): string {
    this.#stderr ??= text(this.stderrBytes);
    return this.#stderr;
  }

  /** Whether it exited with 0. */
  get ok(): boolean {
    return this.exitCode === 0;
  }
}
