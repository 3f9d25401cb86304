// Adds to each folder of built modules the addon's types and a loader for it that speaks their kind.
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';

const root = new URL('../', import.meta.url);
const types = readFileSync(new URL('native.d.ts', root), 'utf8');
const names = [...types.matchAll(/^export declare (?:class|function) (\w+)/gm)].map(([, name]) => name);
const loaders = {
  cjs: "module.exports = require('../../forkyard.node');\n",
  esm:
    "import { createRequire } from 'node:module';\n\n" +
    `export const { ${names.join(', ')} } = createRequire(import.meta.url)('../../forkyard.node');\n`,
};

for (const [folder, loader] of Object.entries(loaders)) {
  writeFileSync(new URL(`dist/${folder}/native.js`, root), loader);
  copyFileSync(new URL('native.d.ts', root), new URL(`dist/${folder}/native.d.ts`, root));
}
// The package itself is of ES modules.
writeFileSync(new URL('dist/cjs/package.json', root), `${JSON.stringify({ type: 'commonjs' })}\n`);
