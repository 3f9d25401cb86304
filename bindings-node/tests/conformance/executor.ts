/** The TypeScript executor of the conformance suite: makes the calls that the driver asks for, one JSON line each. */

import { createInterface } from 'node:readline';
import { CALLS, kept } from './calls.js';
import { METHODS, watched } from './surface.js';
import { failure, type Json } from './values.js';

const underWay = new Map<number, AbortController>();

function send(answer: Json): void {
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}

async function perform({ id, call, on, args }: Json): Promise<void> {
  if (call === 'surface') {
    send({ id, returns: { calls: [...CALLS.keys()], methods: METHODS, exempt: {} } });
    return;
  }
  const controller = new AbortController();
  underWay.set(id, controller);
  const via: string[] = [];
  try {
    const returns = await watched(via, async () => CALLS.get(call)?.(kept(on), args, controller.signal));
    send({ id, returns, via });
  } catch (thrown) {
    const { signal } = controller;
    const cancelled = signal.aborted && thrown === signal.reason;
    send({ id, error: cancelled ? { code: 'cancelled', message: 'the call was aborted' } : failure(thrown), via });
  } finally {
    underWay.delete(id);
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  if (order.cancel) {
    underWay.get(order.id)?.abort();
  } else {
    void perform(order);
  }
}
