import { Cancel } from '../native.js';
import { failureOf, InvalidArgument, toError } from './errors.js';

/** What every call takes. */
export interface CallOptions {
  /** Aborts the call: what it began is undone, and it rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
}

/**
 * Makes a call into the addon, and has the signal drop the work behind it.
 * @internal
 */
export async function call<T>(signal: AbortSignal | undefined, begin: (cancel?: Cancel) => Promise<T>): Promise<T> {
  signal?.throwIfAborted();
  const cancel = signal && new Cancel();
  const abort = () => cancel?.cancel();
  signal?.addEventListener('abort', abort, { once: true });
  try {
    return await begin(cancel);
  } catch (thrown) {
    // What went wrong before the abort is told as it is.
    if (signal?.aborted && failureOf(thrown)?.code === 'cancelled') {
      throw signal.reason;
    }
    throw toError(thrown);
  } finally {
    signal?.removeEventListener('abort', abort);
  }
}

/**
 * Makes a call that answers at once.
 * @internal
 */
export function callSync<T>(begin: () => T): T {
  try {
    return begin();
  } catch (thrown) {
    throw toError(thrown);
  }
}

/**
 * What a caller gave as text or bytes, as bytes.
 * @internal
 */
export function bytes(data: string | Uint8Array): Uint8Array {
  if (typeof data === 'string') {
    return Buffer.from(data);
  }
  if (data instanceof Uint8Array) {
    return data;
  }
  const message = `a path, and what is written, must be a string or a Uint8Array, not ${data}`;
  throw new InvalidArgument(message, { code: 'invalid_argument' });
}

/**
 * Bytes as text: UTF-8, with U+FFFD in place of what is not.
 * @internal
 */
export function text(data: Uint8Array): string {
  return decoder().decode(data);
}

/**
 * A decoder that keeps a byte order mark, as any other character.
 * @internal
 */
export function decoder(): InstanceType<typeof TextDecoder> {
  return new TextDecoder('utf-8', { ignoreBOM: true });
}
