import { settle } from '../native.js';

// Node before 20.5 has none; TypeScript's `await using` looks for it by this name.
if (Symbol.asyncDispose === undefined) {
  Object.defineProperty(Symbol, 'asyncDispose', { value: Symbol.for('Symbol.asyncDispose') });
}

// A process whose call was aborted is killed also where the abort ends the program.
process.on('exit', settle);
