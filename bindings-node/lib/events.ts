import type * as native from '../native.js';
import type { FileEvent, SandboxEvent } from '../native.js';
import { type CallOptions, call } from './call.js';

/** Which folder to watch, and until when. */
export interface WatchOptions extends CallOptions {
  /** Whether all below it is watched too: up to 8,192 folders, links not followed. Default: true. */
  recursive?: boolean | undefined;
}

/** Which of a machine's events to answer. */
export interface EventsOptions extends CallOptions {
  /** Only what came after the events that had it. Default: all that is kept. */
  cursor?: string | undefined;
  /**
   * Milliseconds to wait for the next event where there is none yet, at most a minute and half of the client's time-out.
   * Default: 0.
   */
  waitMs?: number | undefined;
}

/** Which of a machine's events to follow, and until when. */
export type FollowOptions = Omit<EventsOptions, 'waitMs'>;

/** The addon's half of what tells one event after another. */
interface Feed<T> {
  next(cancel?: native.Cancel): Promise<T | null>;
  close(): Promise<void>;
}

/** What tells one event after another: iterate to get them as they come. Leaving the block of an `await using` ends it. */
abstract class Events<T> implements AsyncIterable<T>, AsyncDisposable {
  readonly #feed: Feed<T>;
  readonly #signal: AbortSignal | undefined;

  /** @internal */
  constructor(feed: Feed<T>, signal: AbortSignal | undefined) {
    this.#feed = feed;
    this.#signal = signal;
  }

  [Symbol.asyncIterator](): AsyncIterator<T, undefined> {
    return this.iter({ signal: this.#signal });
  }

  /**
   * Its events from where it was last read. The signal ends this iteration alone, in place of the one that was given at the
   * beginning; none is lost then. Leaving the loop leaves it as it is.
   */
  iter({ signal }: CallOptions = {}): AsyncIterableIterator<T, undefined> {
    const next = async (): Promise<IteratorResult<T, undefined>> => {
      const value = await call(signal, (cancel) => this.#feed.next(cancel));
      return value === null ? { done: true, value: undefined } : { done: false, value };
    };
    const iterator = { next, [Symbol.asyncIterator]: () => iterator };
    return iterator;
  }

  /** Ends it; an iteration that waits ends too. Closing it again does nothing. */
  async close(): Promise<void> {
    await call(undefined, () => this.#feed.close());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/**
 * Events of a watched folder, until the folder itself is gone. A cut connection throws {@link ConnectionFailed}: what happened
 * meanwhile is not known, so watch again and look. While it is open its machine is not idle.
 */
export class Watch extends Events<FileEvent> {}

/** A machine's events, until the machine's end. It does not keep the machine from being idle. */
export class EventStream extends Events<SandboxEvent> {}
