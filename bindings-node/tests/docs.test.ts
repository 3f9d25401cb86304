/** Every TypeScript snippet of the README and the docs runs and prints what it is said to print; every example ends well. */

import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { COMPILED, node, PACKAGE, REPOSITORY } from './helpers.js';

/** Laid out by `tools/snippets.mjs`, each with its output where the page says it. */
const SNIPPETS = join(PACKAGE, 'dist/snippets');
const snippets = (await readdir(SNIPPETS)).filter((name) => name.endsWith('.ts')).sort();
const examples = (await readdir(join(REPOSITORY, 'examples/node'))).filter((name) => name.endsWith('.ts')).sort();

test('there are snippets and examples', () => {
  assert.ok(snippets.length > 0 && examples.length >= 3);
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

for (const name of examples) {
  test(`the example ${name}`, { timeout: 600_000 }, async () => {
    const done = await node([join(COMPILED, 'examples/node', name.replace(/ts$/, 'js'))], 580_000, REPOSITORY);
    assert.equal(done.code, 0, done.stdout + done.stderr);
    assert.match(done.stdout, /\d s {2}\S/);
  });
}
