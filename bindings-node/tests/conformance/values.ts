/** Arguments and answers as the suite writes them: the wire's names, and bytes where text would lose some. */

import { CommandFailed, CommandTimeout, type ExecResult, type FileInfo, ForkyardError } from 'forkyard';

// biome-ignore lint/suspicious/noExplicitAny: the driver's JSON, whose shape each call knows
export type Json = any;

/** Names that are others here, for arguments. */
const ARGUMENTS: Record<string, string> = {
  cpus: 'cpu',
  command: 'cmd',
  checkpoint_type: 'type',
  kill_on_cancel: 'killOnAbort',
};

/** Names that are others here, for answers. */
const ANSWERS: Record<string, string> = { cpu: 'cpus', cmd: 'command' };

function camel(name: string): string {
  return name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());
}

function snake(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** Text as it is, bytes as bytes. */
export function raw(value: Json): Json {
  return typeof value === 'string' ? value : Buffer.from(value.$bytes, 'base64');
}

export function asBytes(data: Uint8Array): Json {
  return { $bytes: Buffer.from(data).toString('base64') };
}

/** Arguments by their names here; seconds are milliseconds, and a policy is spread over them. */
export function options(args: Json): Json {
  const { network = {}, ...rest } = args;
  const renamed = Object.entries({ ...rest, ...network }).map(([name, value]) => {
    if (name.endsWith('_secs')) {
      return [camel(name.replace('_secs', '_ms')), (value as number) * 1000];
    }
    return [ARGUMENTS[name] ?? camel(name), value];
  });
  return Object.fromEntries(renamed);
}

/** A record of the package's. */
export function record(value: Json): Json {
  if (value instanceof Uint8Array) {
    return asBytes(value);
  }
  if (Array.isArray(value)) {
    return value.map(record);
  }
  if (typeof value !== 'object' || value === null) {
    return value;
  }
  const named = Object.entries(value).map(([name, member]) => [
    ANSWERS[name] ?? snake(name),
    name === 'labels' ? member : record(member),
  ]);
  return Object.fromEntries(named);
}

/** A record with a time in seconds, or sizes in bytes, by the wire's names. */
export function renamed(value: Json, names: Record<string, string>): Json {
  const said = record(value);
  for (const [from, to] of Object.entries(names)) {
    const member = said[from];
    delete said[from];
    said[to] = to.endsWith('_secs') && member !== undefined ? member / 1000 : member;
  }
  return said;
}

export const sandboxInfo = (value: Json): Json => renamed(value, { timeout_ms: 'timeout_secs' });
export const snapshotInfo = (value: Json): Json =>
  renamed(value, { size: 'size_bytes', logical_size: 'logical_size_bytes' });
export const imageInfo = (value: Json): Json => renamed(value, { size: 'size_bytes' });
export const retention = (value: Json): Json => renamed(value, { max_age_ms: 'max_age_secs' });

export function fileInfo({ nameBytes, ...info }: FileInfo): Json {
  return { ...record(info), name: nameBytes === undefined ? info.name : asBytes(nameBytes) };
}

/** How a command went. */
export function result(value: ExecResult): Json {
  const { stdout, stderr, ok } = value;
  return { ...record({ ...value }), stdout, stderr, ok };
}

/** What a call threw. */
export function failure(thrown: unknown): Json {
  if (thrown instanceof ForkyardError) {
    const { code, message, requestId, retryAfterMs, resource, errno } = thrown;
    const told = { code, message, request_id: requestId, retry_after_ms: retryAfterMs, resource, errno };
    const ended = thrown instanceof CommandFailed || thrown instanceof CommandTimeout ? thrown.result : undefined;
    return ended === undefined ? told : { ...told, result: result(ended) };
  }
  return { code: 'executor', message: String(thrown) };
}
