/** How a process is kept running, as the suite writes it. */

import { type Json, options } from './values.js';

/** A start's arguments by their names here, those of its policy and its check too. */
export function managed({ restart, health_check, ...args }: Json): Json {
  const said = options(args);
  if (restart !== undefined) {
    said.restart = options(restart);
  }
  if (health_check !== undefined) {
    // A program alone is called otherwise here; this is one with its arguments.
    const { command, ...check } = health_check;
    said.healthCheck = { ...options(check), command };
  }
  return said;
}
