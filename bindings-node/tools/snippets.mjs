// Lays out every TypeScript snippet of the README and the docs as a program of its own, for the compiler and the tests; the
// output that a page says it has lies beside it.
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';

const root = new URL('../../', import.meta.url);
const target = new URL('../dist/snippets/', import.meta.url);

const docs = readdirSync(new URL('docs/', root), { recursive: true }).filter((name) => name.endsWith('.md'));
const pages = ['README.md', 'bindings-node/README.md', ...docs.sort().map((name) => `docs/${name}`)];

rmSync(target, { recursive: true, force: true });
mkdirSync(target, { recursive: true });
let laid = 0;
for (const page of pages) {
  const text = readFileSync(new URL(page, root), 'utf8');
  const found = [...text.matchAll(/```typescript\n(.*?)```\n(?:\n```text\n(.*?)```)?/gs)];
  if (found.length !== text.split('```typescript').length - 1) {
    throw new Error(`${page} has a snippet that this program does not see`);
  }
  for (const [index, [, program, output]] of found.entries()) {
    const name = `${page.replaceAll(/[/.]/g, '_')}_${index + 1}`;
    writeFileSync(new URL(`${name}.ts`, target), program);
    if (output !== undefined) {
      writeFileSync(new URL(`${name}.txt`, target), output);
    }
    laid += 1;
  }
}
if (laid === 0) {
  throw new Error('there is no snippet at all');
}
