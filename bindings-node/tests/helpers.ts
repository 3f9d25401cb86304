import { type ChildProcess, spawn } from 'node:child_process';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Sandbox } from 'forkyard';

/** All that was compiled of these tests, the examples and the docs. */
export const COMPILED = join(dirname(fileURLToPath(import.meta.url)), '../..');

/** The package's folder. */
export const PACKAGE = join(COMPILED, '../..');

/** The repository. */
export const REPOSITORY = join(PACKAGE, '..');

/** Where on this host a page may be served that machines can be allowed to reach: not on loopback, which they have themselves. */
export const PAGE = { address: process.env.FORKYARD_TEST_ADDRESS ?? '', port: Number(process.env.FORKYARD_TEST_PORT) };

/** Why there can be none, where that is so. */
export const NO_PAGE = PAGE.address === '' && 'this host has no address but loopback';

/** Waits until a condition holds. */
export async function until(condition: () => Promise<boolean>, what: string, ms = 20_000): Promise<void> {
  const deadline = Date.now() + ms;
  while (!(await condition())) {
    if (Date.now() > deadline) {
      throw new Error(`it did not come about that ${what}`);
    }
    await sleep(100);
  }
}

/** Whether a program whose command line is this runs in the machine. */
export async function runs(sandbox: Sandbox, commandLine: string): Promise<boolean> {
  return (await sandbox.exec({ cmd: 'pgrep', args: ['-fx', commandLine] })).ok;
}

/** What a program of Node's did. */
export interface Ended {
  code: number | null;
  signal: string | null;
  stdout: string;
  stderr: string;
}

/** Runs Node with these arguments in the package's folder, where it finds the package by its name. */
export function node(args: string[], ms = 60_000, cwd = PACKAGE): Promise<Ended> {
  const child = spawn(process.execPath, args, { cwd, timeout: ms, stdio: ['ignore', 'pipe', 'pipe'] });
  return ended(child);
}

/** Waits for a program's end. */
export function ended(child: ChildProcess): Promise<Ended> {
  return new Promise((resolve, reject) => {
    let stdout = '';
    let stderr = '';
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
}
