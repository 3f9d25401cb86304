/**
 * Close the lid and come back: an interpreter's variables outlive the program that made them.
 *
 * The first program starts a Python interpreter in a named machine, has it compute something, suspends the machine and ends.
 * A second program, which knows nothing but the name, goes on with the interpreter's variables.
 *
 * Usage: 03_pause_and_return, with a server running (`make serve`).
 */

import { spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { Sandbox } from 'forkyard';

/** Reads lines of code from a pipe and runs them, all in one set of variables. */
const INTERPRETER = `\
import contextlib, io, os

os.mkfifo("/workspace/code")
os.mkfifo("/workspace/answer")
variables = {}
while True:
    with open("/workspace/code") as code:
        source = code.read()
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(source, variables)
    with open("/workspace/answer", "w") as answer:
        answer.write(output.getvalue())
`;

const ASK = 'until [ -p answer ]; do sleep 0.1; done; printf "%s" "$1" >code; cat answer';

const started = performance.now();

/** Prints what happens, and when. */
function say(text: string): void {
  console.log(`${((performance.now() - started) / 1000).toFixed(2).padStart(6)} s  ${text}`);
}

/** Has the interpreter in the machine run some code; answers what it printed. */
async function execute(sandbox: Sandbox, code: string): Promise<string> {
  const args = ['-c', ASK, 'sh', code];
  const { stdout } = await sandbox.exec({ cmd: 'sh', args, check: true, timeoutMs: 60_000 });
  return stdout.trim();
}

/** What the first program does. */
async function begin(name: string): Promise<void> {
  const sandbox = await Sandbox.create({ name });
  await sandbox.writeFile('/workspace/interpreter.py', INTERPRETER);
  await sandbox.start({ cmd: 'python', args: ['interpreter.py'] });
  await execute(sandbox, 'primes = [n for n in range(2, 1000) if all(n % d for d in range(2, int(n**0.5) + 1))]');
  const count = await execute(sandbox, 'print(len(primes))');
  say(`first program: ${count} primes are in a variable, in ${sandbox.sandboxId}`);
  const { status } = await sandbox.suspend();
  say(`first program: the machine is ${status}, and I am done`);
}

/** What the second program does, in a process of its own. */
async function goOn(name: string): Promise<void> {
  await using sandbox = await Sandbox.connect(name);
  say(`second program: found '${name}', which is ${sandbox.status}`);
  const { status } = await sandbox.resume();
  say(`second program: it is ${status}; its last prime is ${await execute(sandbox, 'print(primes[-1])')}`);
}

const [, program = '', name] = process.argv;
if (name !== undefined) {
  await goOn(name);
  say('the machine is gone');
} else {
  const unique = `thinker-${randomUUID().slice(0, 8)}`;
  await begin(unique);
  process.exitCode = spawnSync(process.execPath, [program, unique], { stdio: 'inherit' }).status ?? 1;
}
