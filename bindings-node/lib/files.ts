import type * as native from '../native.js';
import { type FileInfo, Progress, type TreeSummary } from '../native.js';
import { bytes, type CallOptions, call, text } from './call.js';
import { Watch, type WatchOptions } from './events.js';

/** A path in a machine, from its root: text, or bytes where it is not UTF-8. */
export type Path = string | Uint8Array;

/** Which part of a file to read. */
export interface ReadOptions extends CallOptions {
  /** Bytes to pass over. Default: 0. */
  offset?: number | undefined;
  /** Bytes to read at most. Default: all. */
  length?: number | undefined;
}

/** How to write a file. */
export interface WriteOptions extends CallOptions {
  /** Its permission bits. Default: those of the file that it replaces, else 0o644. */
  mode?: number | undefined;
}

/** How to move a file or a folder between this host and a machine. */
export interface TransferOptions extends CallOptions {
  /**
   * Told of the bytes that went over so far; after a cut they count from 0 again. Not of each piece, where it is slow. An
   * error in it ends the transfer.
   */
  onProgress?: ((bytes: number) => void) | undefined;
}

/** What a machine can do with its files. */
export abstract class Files {
  /** @internal */
  abstract readonly native: native.Sandbox;

  /** A file's contents, or part of them, as bytes or, with an encoding, as text: U+FFFD in place of what is not UTF-8. */
  async readFile(path: Path, options: ReadOptions & { encoding: 'utf8' | 'utf-8' }): Promise<string>;
  async readFile(path: Path, options?: ReadOptions & { encoding?: undefined }): Promise<Uint8Array>;
  async readFile(
    path: Path,
    { offset, length, encoding, signal }: ReadOptions & { encoding?: 'utf8' | 'utf-8' | undefined } = {},
  ): Promise<Uint8Array | string> {
    const data = await call(signal, (cancel) => this.native.readFile(bytes(path), offset, length, cancel));
    return encoding === undefined ? data : text(data);
  }

  /** A file's contents as text: UTF-8, with U+FFFD in place of what is not. */
  readText(path: Path, options: CallOptions = {}): Promise<string> {
    return this.readFile(path, { ...options, encoding: 'utf8' });
  }

  /**
   * Replaces a file's contents as a whole, making missing folders; until then the old contents stay. Text becomes UTF-8.
   * Fails with {@link NoSpace} where the machine's disk is full.
   */
  writeFile(path: Path, data: string | Uint8Array, { mode, signal }: WriteOptions = {}): Promise<FileInfo> {
    return call(signal, (cancel) => this.native.writeFile(bytes(path), bytes(data), mode, cancel));
  }

  /** Sends a local file, streamed: memory stays flat whatever its size. */
  upload(local: string, remote: Path, options: WriteOptions & TransferOptions = {}): Promise<FileInfo> {
    return transfer(options, (progress, cancel) =>
      this.native.upload(local, bytes(remote), options.mode, progress, cancel),
    );
  }

  /** Fetches a file, streamed; answers its size in bytes. The local file changes as a whole once all of it is there. */
  download(remote: Path, local: string, options: TransferOptions = {}): Promise<number> {
    return transfer(options, (progress, cancel) => this.native.download(bytes(remote), local, progress, cancel));
  }

  /**
   * Sends a local folder with all that is in it, streamed. One that is not there appears as a whole, with what is missing above
   * it. Into one that is there everything is put, each file as a whole, over what has the same name; nothing is removed. All of it
   * belongs to the image's user; permission bits and times are kept, links are kept as links. Progress is of the stream, which is
   * somewhat longer than the files.
   *
   * Fails with {@link NoSpace} where the machine's disk is full; the message names the file that could not be read or written.
   */
  uploadDir(local: string, remote: Path, options: TransferOptions = {}): Promise<TreeSummary> {
    return transfer(options, (progress, cancel) => this.native.uploadDir(local, bytes(remote), progress, cancel));
  }

  /**
   * Fetches a folder with all that is in it, streamed, as `uploadDir` sends one; it belongs to the caller. The machine is not
   * trusted: nothing lands outside the local folder, and links that lead out of it are left out and counted.
   *
   * Fails with {@link FileNotFound} where the machine has no such folder; the message names the file that could not be read or
   * written.
   */
  downloadDir(remote: Path, local: string, options: TransferOptions = {}): Promise<TreeSummary> {
    return transfer(options, (progress, cancel) => this.native.downloadDir(bytes(remote), local, progress, cancel));
  }

  /**
   * Watches a folder, from when this resolves on. The machine is not idle meanwhile. The signal also ends iterating, which then
   * rejects with its reason.
   *
   * Fails with {@link FileNotFound} where there is no such folder, with {@link FailedPrecondition} where it has more folders than
   * can be watched, and with {@link NoCapacity} where 64 folders of the machine are watched already.
   */
  async watch(path: Path, { recursive = true, signal }: WatchOptions = {}): Promise<Watch> {
    const watch = await call(signal, (cancel) => this.native.watchFiles(bytes(path), recursive, cancel));
    return new Watch(watch, signal);
  }

  /** A folder's entries, by name. */
  list(path: Path, { signal }: CallOptions = {}): Promise<FileInfo[]> {
    return call(signal, (cancel) => this.native.listFiles(bytes(path), cancel));
  }

  /** A file's attributes, those of a link's target. Fails with {@link FileNotFound} where there is no such file. */
  stat(path: Path, { signal }: CallOptions = {}): Promise<FileInfo> {
    return call(signal, (cancel) => this.native.stat(bytes(path), cancel));
  }

  /** Whether there is something of this name. */
  exists(path: Path, { signal }: CallOptions = {}): Promise<boolean> {
    return call(signal, (cancel) => this.native.exists(bytes(path), cancel));
  }

  /** Makes a folder and what is missing above it; one that is there is as wanted. */
  mkdir(path: Path, { signal }: CallOptions = {}): Promise<FileInfo> {
    return call(signal, (cancel) => this.native.makeDir(bytes(path), cancel));
  }

  /** Moves a file or folder, over another only if so told. */
  move(source: Path, target: Path, options: CallOptions & { overwrite?: boolean | undefined } = {}): Promise<FileInfo> {
    const { overwrite = false, signal } = options;
    return call(signal, (cancel) => this.native.moveFile(bytes(source), bytes(target), overwrite, cancel));
  }

  /** Removes a file or, with `recursive`, a folder and all that is in it. */
  async remove(path: Path, options: CallOptions & { recursive?: boolean | undefined } = {}): Promise<void> {
    const { recursive = false, signal } = options;
    await call(signal, (cancel) => this.native.remove(bytes(path), recursive, cancel));
  }
}

/** Has a transfer done and tells how far it is. */
async function transfer<T>(
  { onProgress, signal }: TransferOptions,
  begin: (progress?: native.Progress, cancel?: native.Cancel) => Promise<T>,
): Promise<T> {
  if (onProgress === undefined) {
    return call(signal, (cancel) => begin(undefined, cancel));
  }
  const progress = new Progress();
  const listener = new AbortController();
  const either = signal === undefined ? listener.signal : AbortSignal.any([signal, listener.signal]);
  // The end of one that never began must be told: what waits for it would keep the program alive.
  const done = call(either, (cancel) => begin(progress, cancel)).finally(() => progress.end());
  const tell = async () => {
    for (let bytes = await progress.next(); bytes !== null; bytes = await progress.next()) {
      onProgress(bytes);
    }
  };
  // An error in the listener ends the transfer, which then rejects with it.
  const [outcome] = await Promise.all([done, tell().catch((error: unknown) => listener.abort(error))]);
  listener.signal.throwIfAborted();
  return outcome;
}
