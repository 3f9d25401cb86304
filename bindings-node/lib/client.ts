import type {
  ClientOptions,
  CreatedKey,
  ImageInfo,
  KeyInfo,
  KeyRequest,
  PoolInfo,
  PoolRequest,
  RetentionPolicy,
  SandboxFilter,
  SandboxInfo,
  ServerInfo,
  SnapshotInfo,
} from '../native.js';
import * as native from '../native.js';
import { type CallOptions, call, callSync } from './call.js';

/** Which machines to fetch, and how. */
export interface IterOptions extends SandboxFilter, CallOptions {
  /** Machines that one request fetches, 1 to 1,000. Default: 100. */
  pageSize?: number | undefined;
}

/** One server and one pool of connections to it, however many machines it drives. */
export class Client {
  /** @internal */
  readonly native: native.Client;

  /** Connects when it is first used. Throws {@link InvalidArgument} where the address is none, or no key is found. */
  constructor(options: ClientOptions = {}) {
    this.native = callSync(() => new native.Client(options));
  }

  /**
   * The machines of the project that fit all that is said, newest first; without a word all, ended ones included. Fails with
   * {@link InvalidArgument} where no label can be as asked.
   */
  list(options: SandboxFilter & CallOptions = {}): Promise<SandboxInfo[]> {
    return call(options.signal, (cancel) => this.native.list(options, cancel));
  }

  /**
   * The same machines, fetched as they are read, a page at a time. One that is made meanwhile is not among them, and none comes
   * twice.
   */
  async *iter(options: IterOptions = {}): AsyncGenerator<SandboxInfo, undefined> {
    const listing = callSync(() => this.native.listing(options, options.pageSize ?? 100));
    for (;;) {
      const page = await call(options.signal, (cancel) => listing.nextPage(cancel));
      if (page === null) {
        return undefined;
      }
      yield* page;
    }
  }

  /** A machine's record. Fails with {@link SandboxNotFound} where there is none of this id in the project. */
  get(sandboxId: string, { signal }: CallOptions = {}): Promise<SandboxInfo> {
    return call(signal, (cancel) => this.native.get(sandboxId, cancel));
  }

  /** Ends a machine and waits for its end; ending one that has ended answers how it ended. */
  destroy(sandboxId: string, { signal }: CallOptions = {}): Promise<SandboxInfo> {
    return call(signal, (cancel) => this.native.terminate(sandboxId, cancel));
  }

  /** All snapshots of the project, newest first. */
  snapshots({ signal }: CallOptions = {}): Promise<SnapshotInfo[]> {
    return call(signal, (cancel) => this.native.snapshots(cancel));
  }

  /** A snapshot's record. Fails with {@link SnapshotNotFound} where there is none of this id in the project. */
  snapshot(snapshotId: string, { signal }: CallOptions = {}): Promise<SnapshotInfo> {
    return call(signal, (cancel) => this.native.snapshot(snapshotId, cancel));
  }

  /**
   * Deletes a snapshot; machines that came from it go on. Fails with {@link SnapshotNotFound} where there is none of this
   * id in the project.
   */
  async deleteSnapshot(snapshotId: string, { signal }: CallOptions = {}): Promise<void> {
    await call(signal, (cancel) => this.native.deleteSnapshot(snapshotId, cancel));
  }

  /** Which of its snapshots the project keeps. */
  retention({ signal }: CallOptions = {}): Promise<RetentionPolicy> {
    return call(signal, (cancel) => this.native.retention(cancel));
  }

  /**
   * Has the project keep others of its snapshots; what it no longer keeps is deleted at once. Snapshots made with `retain`
   * are never deleted by it; they count in the budget. What is left out of the policy has its default.
   */
  setRetention(policy: RetentionPolicy, { signal }: CallOptions = {}): Promise<RetentionPolicy> {
    return call(signal, (cancel) => this.native.setRetention(policy, cancel));
  }

  /**
   * Has machines of one kind kept ready: `Sandbox.create` hands one out where it asks for such a machine. Fails with
   * {@link QuotaExceeded} where the key may not have so many machines.
   */
  createPool(pool: PoolRequest, { signal }: CallOptions = {}): Promise<PoolInfo> {
    return call(signal, (cancel) => this.native.createPool(pool, cancel));
  }

  /** A pool, with its machines counted. Fails with {@link PoolNotFound} where there is none of this id in the project. */
  pool(poolId: string, { signal }: CallOptions = {}): Promise<PoolInfo> {
    return call(signal, (cancel) => this.native.pool(poolId, cancel));
  }

  /** All pools of the project, newest first. */
  pools({ signal }: CallOptions = {}): Promise<PoolInfo[]> {
    return call(signal, (cancel) => this.native.pools(cancel));
  }

  /** Has a pool keep something else, as `createPool` says it; those of another kind that wait in it are ended. */
  changePool(poolId: string, pool: PoolRequest, { signal }: CallOptions = {}): Promise<PoolInfo> {
    return call(signal, (cancel) => this.native.changePool(poolId, pool, cancel));
  }

  /** Deletes a pool and ends the machines that wait in it; those that were claimed go on. */
  async deletePool(poolId: string, { signal }: CallOptions = {}): Promise<void> {
    await call(signal, (cancel) => this.native.deletePool(poolId, cancel));
  }

  /** The server's images. */
  images({ signal }: CallOptions = {}): Promise<ImageInfo[]> {
    return call(signal, (cancel) => this.native.images(cancel));
  }

  /** The server's version, accelerator and room. */
  serverInfo({ signal }: CallOptions = {}): Promise<ServerInfo> {
    return call(signal, (cancel) => this.native.serverInfo(cancel));
  }

  /** Makes an API key; its secret is shown this once. Needs a key of scope `admin`. */
  createKey(key: KeyRequest = {}, { signal }: CallOptions = {}): Promise<CreatedKey> {
    return call(signal, (cancel) => this.native.createKey(key, cancel));
  }

  /** The server's API keys, without their secrets. Needs a key of scope `admin`. */
  listKeys({ signal }: CallOptions = {}): Promise<KeyInfo[]> {
    return call(signal, (cancel) => this.native.listKeys(cancel));
  }

  /** Revokes an API key at once; machines made with it go on. Needs a key of scope `admin`. */
  async revokeKey(keyId: string, { signal }: CallOptions = {}): Promise<void> {
    await call(signal, (cancel) => this.native.revokeKey(keyId, cancel));
  }
}

let byEnvironment: Client | undefined;

/**
 * The client that is used where none is given: one a process, made at its first use.
 * @internal
 */
export function defaultClient(): Client {
  byEnvironment ??= new Client();
  return byEnvironment;
}
