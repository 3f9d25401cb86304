/**
 * A machine of one's own: write files, run them, watch a longer command, read a result back.
 *
 * Usage: 01_first_sandbox [IMAGE], with a server running (`make serve`).
 */

import { ForkyardError, Sandbox } from 'forkyard';

const WORDS = `\
import collections, json, sys

counts = collections.Counter(sys.stdin.read().split())
json.dump(counts.most_common(3), open("/workspace/result.json", "w"))
print(sum(counts.values()), "words")
`;

const COUNTDOWN = `\
import time

for number in (3, 2, 1):
    print(number, flush=True)
    time.sleep(0.3)
print("done", flush=True)
`;

const started = performance.now();

/** Prints what happens, and when. */
function say(text: string): void {
  console.log(`${((performance.now() - started) / 1000).toFixed(2).padStart(6)} s  ${text}`);
}

async function main(image = 'python'): Promise<void> {
  say(`asking for a machine with image '${image}'`);
  await using sandbox = await Sandbox.create({ image, memoryMb: 512 });
  say(`${sandbox.sandboxId} runs`);
  await sandbox.writeFile('/workspace/words.py', WORDS);
  await sandbox.writeFile('/workspace/countdown.py', COUNTDOWN);
  say('wrote two source files');

  const words = { cmd: 'python', args: ['words.py'], stdin: 'to be or not to be that is', check: true };
  const { stdout, durationMs } = await sandbox.exec(words);
  say(`words.py says: ${stdout.trim()} (it ran ${(durationMs / 1000).toFixed(2)} s)`);

  await sandbox.exec({
    cmd: 'python',
    args: ['countdown.py'],
    timeoutMs: 60_000,
    check: true,
    onStdout: (text) => {
      // A line and its end may come in two pieces.
      if (text.trim() !== '') {
        say(`  countdown.py: ${JSON.stringify(text.trim())}`);
      }
    },
  });
  say(`the result, read back: ${await sandbox.readText('/workspace/result.json')}`);

  {
    await using other = await Sandbox.create({ image, memoryMb: 512 });
    say(`${other.sandboxId} runs beside it`);
    const names = (await other.list('/workspace')).map(({ name }) => name);
    if (names.length > 0 || (await other.exists('/workspace/result.json'))) {
      throw new Error("the second machine sees the first one's files");
    }
    say("it sees nothing of the first one's files");
  }
}

try {
  await main(process.argv[2]);
  say('both machines are gone');
} catch (error) {
  if (!(error instanceof ForkyardError)) {
    throw error;
  }
  console.error(`${error.name}: ${error.message}`);
  process.exitCode = 1;
}
