import { Duplex } from 'node:stream';
import type * as native from '../native.js';
import type { ListeningPort } from '../native.js';
import { type CallOptions, call, callSync } from './call.js';
import { toError } from './errors.js';

/** How long to wait for a port. */
export interface WaitOptions extends CallOptions {
  /** Milliseconds to wait at most. Default: 60,000. */
  timeoutMs?: number | undefined;
}

/** Where on this host to listen. */
export interface ForwardOptions extends CallOptions {
  /** This host's port. Default: any that is free. */
  localPort?: number | undefined;
  /** This host's address. Default: `127.0.0.1`; another lets others in. */
  host?: string | undefined;
}

/** How long a preview is to live. */
export interface PreviewOptions extends CallOptions {
  /** Milliseconds until it ends, rounded up to whole seconds, at most 7 days. Default: 3,600,000. */
  expiresMs?: number | undefined;
}

/** Bytes that are read ahead, and bytes that wait to be sent, before a {@link Tunnel} asks to be waited for. */
const WINDOW = 64 * 1024;

/**
 * A machine's TCP ports. All goes through the server: the machine needs no network for it. Connections break off where the machine
 * is suspended or ends, and a fork does not have its original's.
 */
export class Ports {
  /** @internal */
  readonly native: native.Sandbox;

  /** @internal */
  constructor(sandbox: native.Sandbox) {
    this.native = sandbox;
  }

  /** The ports that something in the machine listens on, in their order. */
  list({ signal }: CallOptions = {}): Promise<ListeningPort[]> {
    return call(signal, (cancel) => this.native.ports(cancel));
  }

  /** Waits until something listens on a port. Fails with {@link DeadlineExceeded} where nothing did in time. */
  async wait(port: number, { timeoutMs = 60_000, signal }: WaitOptions = {}): Promise<void> {
    await call(signal, (cancel) => this.native.waitPort(port, timeoutMs, cancel));
  }

  /**
   * Connects to a port. The signal is the call's; what is to end the connection later is given to `addAbortSignal` of
   * `node:stream`.
   *
   * Fails with {@link FailedPrecondition} where nothing listens there, and with {@link NoCapacity} where 512 connections to the
   * machine's ports are open already.
   */
  async connect(port: number, { signal }: CallOptions = {}): Promise<Tunnel> {
    return new Tunnel(await call(signal, (cancel) => this.native.connectPort(port, cancel)));
  }

  /**
   * Listens on this host and connects whoever comes to the machine's port, up to 256 at once; nothing need listen there yet. It
   * does not keep the program alive. Fails with {@link InvalidArgument} where the address is taken, or none of this host's.
   */
  async forward(port: number, options: ForwardOptions = {}): Promise<Forward> {
    const { localPort = 0, host = '127.0.0.1', signal } = options;
    return new Forward(await call(signal, (cancel) => this.native.forwardPort(port, host, localPort, cancel)));
  }

  /**
   * An address at which whoever has it reaches the HTTP server on a port, WebSockets included, without a key; nothing need listen
   * there yet. It is a secret, and ends at its time or with the machine.
   */
  previewUrl(port: number, { expiresMs = 3_600_000, signal }: PreviewOptions = {}): Promise<string> {
    return call(signal, (cancel) => this.native.previewUrl(port, expiresMs, cancel));
  }

  /**
   * The address of the HTTP server on a port for those who have the API key (`Authorization: Bearer …`), which is not passed on
   * into the machine.
   */
  url(port: number): string {
    return callSync(() => this.native.portUrl(port));
  }
}

/**
 * A connection to a port in a machine: a stream as any other, to be read from and written to. `end` ends what goes there, while
 * what comes from there can be read on. Leaving the block of an `await using` closes it, and so does `destroy`.
 */
export class Tunnel extends Duplex implements AsyncDisposable {
  /** @internal */
  constructor(tunnel: native.Tunnel) {
    const done = (work: Promise<void>, callback: (error?: Error | null) => void): void => {
      work.then(
        () => callback(),
        (thrown) => callback(toError(thrown) as Error),
      );
    };
    super({
      readableHighWaterMark: WINDOW,
      writableHighWaterMark: WINDOW,
      read(this: Duplex) {
        tunnel.read(WINDOW).then(
          (data) => this.push(data.length === 0 ? null : data),
          (thrown) => this.destroy(toError(thrown) as Error),
        );
      },
      write: (data: Buffer, _, callback) => done(tunnel.write(data), callback),
      writev: (pieces, callback) => done(tunnel.write(Buffer.concat(pieces.map(({ chunk }) => chunk))), callback),
      final: (callback) => done(tunnel.closeWrite(), callback),
      destroy: (error, callback) => done(tunnel.close(), (failed) => callback(error ?? failed ?? null)),
    });
  }

  // Node before 20.4 has none.
  override async [Symbol.asyncDispose](): Promise<void> {
    if (!this.closed) {
      const closed = new Promise<void>((resolve) => this.once('close', resolve));
      this.destroy();
      await closed;
    }
  }
}

/** A port on this host that leads to one in a machine until it is closed. */
export class Forward implements AsyncDisposable {
  /** This host's address. */
  readonly host: string;
  /** This host's port. */
  readonly port: number;
  /** @internal */
  readonly native: native.Forward;

  /** @internal */
  constructor(forward: native.Forward) {
    this.native = forward;
    this.host = forward.host;
    this.port = forward.port;
  }

  /** Ends it and all its connections; nobody is taken any more then. */
  async close({ signal }: CallOptions = {}): Promise<void> {
    await call(signal, (cancel) => this.native.close(cancel));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
