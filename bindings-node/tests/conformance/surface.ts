/** What the package's public API has, found in it, and what a call goes through. */

import { AsyncLocalStorage } from 'node:async_hooks';
import { Duplex } from 'node:stream';
import * as forkyard from 'forkyard';

/** The methods that the call under way went through; null inside of one, which may use others. */
const storage = new AsyncLocalStorage<string[] | null>();

type Callable = (...args: unknown[]) => unknown;

/** Notes the public methods that are called meanwhile. */
export function watched<T>(via: string[], work: () => T): T {
  return storage.run(via, work);
}

function note(name: string): void {
  const via = storage.getStore();
  if (via && !via.includes(name)) {
    via.push(name);
  }
}

function noting(name: string, original: Callable): Callable {
  return function (this: unknown, ...args: unknown[]): unknown {
    note(name);
    return storage.run(null, () => original.apply(this, args));
  };
}

/**
 * Has the members of a class or of what it makes note that they are called. What several classes inherit becomes each one's own:
 * it is to note which was called.
 */
function noteMembers(owner: object, into: object, prefix: string, methods: string[]): void {
  for (const key of Reflect.ownKeys(owner)) {
    const descriptor = Object.getOwnPropertyDescriptor(owner, key);
    const member = typeof key === 'symbol' ? `[${key.description?.replace('nodejs.', 'Symbol.')}]` : `.${key}`;
    if (descriptor === undefined || key === 'constructor' || methods.includes(prefix + member)) {
      continue;
    }
    const { get, value } = descriptor;
    if (get) {
      Object.defineProperty(into, key, { ...descriptor, get: noting(prefix + member, get) as () => unknown });
    } else if (typeof value === 'function') {
      Object.defineProperty(into, key, { ...descriptor, value: noting(prefix + member, value as Callable) });
    } else {
      continue;
    }
    methods.push(prefix + member);
  }
}

/** What a connection has of every stream, as far as it is its use. */
const STREAM = ['read', 'write', 'end', 'destroy', Symbol.asyncIterator] as const;

/** Gives a class of streams such methods of its own: those that they all have are not to note anything. */
function ownStream(prototype: object): void {
  for (const key of STREAM) {
    Object.defineProperty(prototype, key, { value: Duplex.prototype[key], configurable: true });
  }
}

/** Whether a class is the package's, not the language's or Node's. */
function isOwn(prototype: object): boolean {
  return prototype !== Object.prototype && prototype !== Duplex.prototype;
}

/** Has all public methods note that they are called, and says which there are. */
function noteAll(): string[] {
  const methods = ['new Client', 'swarm'];
  ownStream(forkyard.Tunnel.prototype);
  for (const [name, kind] of Object.entries(forkyard)) {
    if (kind === forkyard.swarm || kind.prototype instanceof Error) {
      continue;
    }
    noteMembers(kind, kind, name, methods);
    for (let owner = kind.prototype; isOwn(owner); owner = Object.getPrototypeOf(owner)) {
      noteMembers(owner, kind.prototype, name, methods);
    }
  }
  return methods;
}

/** All public methods. */
export const METHODS = noteAll();

/** A client, its making noted. */
export function newClient(options: forkyard.ClientOptions): forkyard.Client {
  note('new Client');
  return new forkyard.Client(options);
}

/** The package's `swarm`, noted. */
export const swarm: typeof forkyard.swarm = noting('swarm', forkyard.swarm as Callable) as typeof forkyard.swarm;
