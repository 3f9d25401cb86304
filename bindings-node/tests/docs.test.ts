/** Every TypeScript snippet of the README and the docs runs and prints what it is said to print; every example ends well. */

import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { COMPILED, NO_PAGE, node, PACKAGE, PAGE, REPOSITORY } from './helpers.js';

/** Laid out by `tools/snippets.mjs`, each with its output where the page says it. */
const SNIPPETS = join(PACKAGE, 'dist/snippets');
const snippets = (await readdir(SNIPPETS)).filter((name) => name.endsWith('.ts')).sort();
const examples = (await readdir(join(REPOSITORY, 'examples/node'))).filter((name) => name.endsWith('.ts')).sort();

/** What each example says once it did what it is for. */
const SAID: Record<string, RegExp> = {
  '01_first_sandbox.ts': /both machines are gone/,
  '02_swarm.ts': /the lead: /,
  '03_pause_and_return.ts': /the machine is gone/,
  '04_network.ts': /a page from the one host\n.*connection_ended .*none: nothing left it/s,
};

test('there are snippets and examples', () => {
  assert.ok(snippets.length > 0);
  // The back end runs until it is interrupted: `backend.test.ts`.
  assert.deepEqual(examples, [...Object.keys(SAID), '05_backend.ts']);
});

for (const name of snippets) {
  test(`the snippet ${name}`, { timeout: 180_000 }, async () => {
    const done = await node([join(COMPILED, 'bindings-node/dist/snippets', name.replace(/ts$/, 'js'))], 150_000);
    assert.equal(done.code, 0, done.stdout + done.stderr);
    assert.ok(done.stdout.trim() !== '', 'it shows something');
    const output = await readFile(join(SNIPPETS, name.replace(/ts$/, 'txt')), 'utf8').catch(() => undefined);
    if (output !== undefined) {
      assert.equal(done.stdout, output);
    }
  });
}

/** What examples are told: the swarm of a few agents takes a third of the time. */
const TOLD: Record<string, string[]> = {
  '02_swarm.ts': ['examples/python/code_review', '2'],
  '04_network.ts': [String(PAGE.port)],
};

for (const [name, said] of Object.entries(SAID)) {
  test(`the example ${name}`, { timeout: 600_000, skip: name === '04_network.ts' && NO_PAGE }, async () => {
    const program = join(COMPILED, 'examples/node', name.replace(/ts$/, 'js'));
    const done = await node([program, ...(TOLD[name] ?? [])], 580_000, REPOSITORY);
    assert.equal(done.code, 0, done.stdout + done.stderr);
    assert.match(done.stdout, said);
  });
}
