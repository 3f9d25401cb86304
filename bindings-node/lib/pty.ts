import type * as native from '../native.js';
import type { ExitStatus, ProcessInfo } from '../native.js';
import { bytes, type CallOptions, call } from './call.js';
import { FailedPrecondition, ForkyardError, ProcessNotFound, SandboxLost } from './errors.js';

/**
 * A process on a pseudo-terminal, and a place in what it shows: iterate to get its bytes as they come.
 *
 * Up to 64 viewers, in any number of programs, see and type at the same terminal (`Sandbox.attachPty`). Leaving the block of
 * an `await using` kills a terminal that was started here, and lets go of one that was attached to.
 */
export class Pty implements AsyncIterable<Uint8Array>, AsyncDisposable {
  /** How it ended, once the iteration or `wait` has seen its end. */
  exit: ExitStatus | undefined;
  /** Bytes that were lost to this viewer: more than is kept, a MiB, was shown before it read them. */
  dropped = 0;
  /** @internal */
  readonly native: native.Process;
  readonly #isOwned: boolean;

  /** @internal */
  constructor(process: native.Process, isOwned: boolean) {
    this.native = process;
    this.#isOwned = isOwned;
  }

  /** The id by which others attach to it. */
  get id(): string {
    return this.native.id;
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array, undefined> {
    return this.output();
  }

  /**
   * What it shows from where it was last read, piece by piece, escape sequences included. Leaving the loop leaves the terminal
   * as it is.
   */
  output({ signal }: CallOptions = {}): AsyncIterableIterator<Uint8Array, undefined> {
    const next = async (): Promise<IteratorResult<Uint8Array, undefined>> => {
      const value = await this.#next(signal);
      return value === undefined ? { done: true, value } : { done: false, value };
    };
    const iterator = { next, [Symbol.asyncIterator]: () => iterator };
    return iterator;
  }

  async #next(signal: AbortSignal | undefined): Promise<Uint8Array | undefined> {
    for (;;) {
      const event = await call(signal, (cancel) => this.native.next(cancel));
      if (event?.exit !== undefined) {
        this.exit = event.exit;
      }
      if (event === null || event.exit !== undefined) {
        return undefined;
      }
      this.dropped += event.dropped ?? 0;
      // A terminal has one output.
      if (event.stdout !== undefined) {
        return event.stdout;
      }
    }
  }

  /** Waits for its end, passing over what it shows until then. */
  async wait({ signal }: CallOptions = {}): Promise<ExitStatus> {
    while (this.exit === undefined && (await this.#next(signal)) !== undefined) {
      // What it shows is not wanted.
    }
    if (this.exit === undefined) {
      const message = 'the terminal was let go of, or read to its end elsewhere';
      throw new ForkyardError(message, { code: 'failed_precondition' });
    }
    return this.exit;
  }

  /** Types these bytes; text becomes UTF-8. Enter is `'\n'`, Ctrl-C `'\x03'`, Ctrl-D `'\x04'`. */
  async write(data: string | Uint8Array, { signal }: CallOptions = {}): Promise<void> {
    await call(signal, (cancel) => this.native.writeStdin(bytes(data), cancel));
  }

  /**
   * Changes its size; what is in its foreground is told (`SIGWINCH`). Fails with {@link InvalidArgument} where a side is not 1
   * to 4,096, and with {@link FailedPrecondition} where it has ended already.
   */
  async resize(rows: number, cols: number, { signal }: CallOptions = {}): Promise<void> {
    await call(signal, (cancel) => this.native.resize(rows, cols, cancel));
  }

  /**
   * Sends a signal, by its number, to the process group in its foreground; 9 to everything that was started on it. Fails with
   * {@link FailedPrecondition} where it has ended already.
   */
  async sendSignal(number: number, { signal }: CallOptions = {}): Promise<void> {
    await call(signal, (cancel) => this.native.signal(number, cancel));
  }

  /** Kills everything that was started on it. */
  kill(options: CallOptions = {}): Promise<void> {
    return this.sendSignal(9, options);
  }

  /** How it stands now; `pty` is its size. */
  info({ signal }: CallOptions = {}): Promise<ProcessInfo> {
    return call(signal, (cancel) => this.native.info(cancel));
  }

  /** Lets go of it: it runs on. A read that is under way ends; the next takes it up where it was. */
  async detach({ signal }: CallOptions = {}): Promise<void> {
    await call(signal, (cancel) => this.native.detach(cancel));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isOwned && this.exit === undefined) {
      await this.kill().catch((error) => {
        // It may have ended by itself, or with its machine.
        if (![FailedPrecondition, ProcessNotFound, SandboxLost].some((kind) => error instanceof kind)) {
          throw error;
        }
      });
    }
    await this.detach();
  }
}
