import type { Failure } from '../native.js';
import type { ExecResult } from './process.js';

/** What an error says beside its message. */
export interface ErrorDetails {
  code?: string | undefined;
  requestId?: string | undefined;
  retryAfterMs?: number | undefined;
  resource?: string | undefined;
  errno?: string | undefined;
}

/** Any failure that Forkyard reports. */
export class ForkyardError extends Error {
  /** The stable word on the wire, such as `no_capacity`. */
  readonly code: string;
  /** The request that failed, as the server logged it; absent if none reached a server. */
  readonly requestId: string | undefined;
  /** Milliseconds after which a retry makes sense, where the server said so. */
  readonly retryAfterMs: number | undefined;
  /**
   * The kind of thing that is missing, taken or in the wrong state: `sandbox`, `process`, `file`, `image`, `snapshot`,
   * `pool`, `user` or `key`.
   */
  readonly resource: string | undefined;
  /** The machine's kernel's own word where a system call failed, such as `ENOSPC`. */
  readonly errno: string | undefined;

  constructor(message: string, details: ErrorDetails = {}) {
    super(message);
    this.name = new.target.name;
    this.code = details.code ?? 'internal';
    this.requestId = details.requestId;
    this.retryAfterMs = details.retryAfterMs;
    this.resource = details.resource;
    this.errno = details.errno;
  }
}

/** A value is out of range or not well formed; the message names it and what is allowed. */
export class InvalidArgument extends ForkyardError {}

/** No API key, or one that is not known or was revoked. */
export class Unauthenticated extends ForkyardError {}

/** The API key, or the user inside the machine, may not do this. */
export class PermissionDenied extends ForkyardError {}

/** No such thing, or it belongs to another project. */
export class NotFound extends ForkyardError {}

/** No such machine. */
export class SandboxNotFound extends NotFound {}

/** No such process in the machine, or it ended too long ago. */
export class ProcessNotFound extends NotFound {}

/** No such file or folder in the machine. */
export class FileNotFound extends NotFound {}

/** No such image on the server. */
export class ImageNotFound extends NotFound {}

/** No such snapshot in the project. */
export class SnapshotNotFound extends NotFound {}

/** No such pool in the project. */
export class PoolNotFound extends NotFound {}

/** A snapshot's files are not what was written; nothing is made of it. */
export class SnapshotCorrupt extends ForkyardError {}

/** A thing of that name is there already. */
export class AlreadyExists extends ForkyardError {}

/** The thing is in a state that does not allow the call. */
export class FailedPrecondition extends ForkyardError {}

/** The body is larger than the server takes. */
export class PayloadTooLarge extends ForkyardError {}

/** A budget of the key or the project is used up. */
export class QuotaExceeded extends ForkyardError {}

/** Too many requests from this key; `retryAfterMs` says when to come back. */
export class RateLimited extends ForkyardError {}

/** The host has no room for another machine just now; `retryAfterMs` says when to ask again. */
export class NoCapacity extends ForkyardError {}

/** A disk is full: the machine's or the host's, as the message says. */
export class NoSpace extends ForkyardError {}

/** The server is starting or stopping, or the machine does not answer just now. */
export class Unavailable extends ForkyardError {}

/** The machine is gone: it crashed, was killed or was ended while the call ran. */
export class SandboxLost extends ForkyardError {}

/** The call's time-out passed. */
export class DeadlineExceeded extends ForkyardError {}

/** The call was cancelled. An `AbortSignal` rejects with its own reason instead. */
export class CallCancelled extends ForkyardError {}

/** The server could not be reached, or the connection broke and could not be taken up again. */
export class ConnectionFailed extends ForkyardError {}

/** A fault of Forkyard itself. */
export class InternalError extends ForkyardError {}

/** A command asked for with `check` did not exit with 0. */
export class CommandFailed extends ForkyardError {
  /** What the command did, its output included. */
  readonly result: ExecResult;

  constructor(result: ExecResult) {
    super(describe(result), { code: 'command_failed' });
    this.result = result;
  }
}

/** A command's `timeoutMs` passed, and it was killed in the machine. */
export class CommandTimeout extends ForkyardError {
  /** What the command did until then, its output included. */
  readonly result: ExecResult;

  constructor(result: ExecResult) {
    const after = (result.durationMs / 1000).toFixed(1);
    super(`the command was killed after its time-out (${after} s)`, { code: 'timeout' });
    this.result = result;
  }
}

type ErrorClass = new (message: string, details?: ErrorDetails) => ForkyardError;

const BY_CODE: ReadonlyMap<string, ErrorClass> = new Map<string, ErrorClass>([
  ['invalid_argument', InvalidArgument],
  ['unauthenticated', Unauthenticated],
  ['permission_denied', PermissionDenied],
  ['not_found', NotFound],
  ['already_exists', AlreadyExists],
  ['failed_precondition', FailedPrecondition],
  ['payload_too_large', PayloadTooLarge],
  ['quota_exceeded', QuotaExceeded],
  ['rate_limited', RateLimited],
  ['no_capacity', NoCapacity],
  ['no_space', NoSpace],
  ['unavailable', Unavailable],
  ['sandbox_lost', SandboxLost],
  ['snapshot_corrupt', SnapshotCorrupt],
  ['timeout', DeadlineExceeded],
  ['cancelled', CallCancelled],
  ['connection', ConnectionFailed],
  ['internal', InternalError],
]);

const NOT_FOUND: ReadonlyMap<string | undefined, ErrorClass> = new Map<string | undefined, ErrorClass>([
  ['sandbox', SandboxNotFound],
  ['process', ProcessNotFound],
  ['file', FileNotFound],
  ['image', ImageNotFound],
  ['snapshot', SnapshotNotFound],
  ['pool', PoolNotFound],
]);

/**
 * What the core said of an error that the addon threw or rejected with.
 * @internal
 */
export function failureOf(thrown: unknown): Failure | undefined {
  return (thrown as { failure?: Failure }).failure;
}

/**
 * The error for what the addon threw or rejected with.
 * @internal
 */
export function toError(thrown: unknown): unknown {
  const failure = failureOf(thrown);
  if (failure !== undefined) {
    // A code that this version does not know becomes a plain ForkyardError.
    const kind = BY_CODE.get(failure.code) ?? ForkyardError;
    const exact = kind === NotFound ? (NOT_FOUND.get(failure.resource) ?? NotFound) : kind;
    return new exact(failure.message, failure);
  }
  const message = thrown instanceof Error ? misfit(thrown.message) : undefined;
  return message === undefined ? thrown : new InvalidArgument(message, { code: 'invalid_argument' });
}

/** What is wrong with a value that napi could not take; undefined where its message is of something else. */
function misfit(message: string): string | undefined {
  const [, value, type, field = 'an argument'] = MISFIT.exec(message) ?? [];
  if (type !== undefined) {
    const must = `${field} must be ${WORDS.get(type) ?? type}`;
    return value === undefined ? must : `${must}, not ${value}`;
  }
  const [, types, either] = NONE_OF.exec(message) ?? [];
  if (types !== undefined) {
    const allowed = [...types.matchAll(/`(\w+)`/g)].map(([, type = '']) => WORDS.get(type) ?? type);
    return `${either} must be ${allowed.join(', or ')}`;
  }
  const [, list] = NO_LIST.exec(message) ?? [];
  return list === undefined ? undefined : `${list} must be an array`;
}

/** What napi says of a value of the wrong type; it does not always say the value. */
const MISFIT =
  /value(?: `?(.+?)\s*`?)? (?:into rust type|does not match any variant of enum) `(\w+)`(?: on \w+\.(\w+))?/;

/** The same where there are several types; it never says the value. */
const NONE_OF = /^Value is none of these types (.+) on \w+\.(\w+)$/;

const NO_LIST = /^Failed to get Array length on \w+\.(\w+)$/;

const WORDS: ReadonlyMap<string, string> = new Map([
  ['String', 'a string'],
  ['f64', 'a number'],
  ['i32', 'a whole number'],
  ['bool', 'true or false'],
  ['CheckpointType', "'filesystem' or 'memory'"],
  ['SandboxStatus', "a status such as 'running'"],
  ['KeyScope', "'sandboxes' or 'admin'"],
  ['RestartPolicy', 'a policy whose values are of the right types'],
  ['RestartWhen', "'never', 'on_failure' or 'always'"],
  ['WhenFull', "'refuse' or 'delete_oldest'"],
]);

/** How a command ended, and the last lines it wrote to standard error. */
function describe(result: ExecResult): string {
  let how = `exited with ${result.exitCode}`;
  if (result.oomKilled) {
    how = 'was killed for want of memory';
  } else if (result.signal !== null) {
    how = `was ended by signal ${result.signal}`;
  }
  const last = result.stderr.trim().split('\n').slice(-5).join('\n').slice(-1000);
  return last === '' ? `the command ${how}` : `the command ${how}: ${last}`;
}
