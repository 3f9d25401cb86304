import { type PlanReport, type SwarmAttempt, SwarmPlan, type SwarmProgress, type TaskStatus } from '../native.js';
import { callSync } from './call.js';
import { DeadlineExceeded, ForkyardError, InvalidArgument } from './errors.js';
import { type CreateOptions, Sandbox } from './sandbox.js';

/** What is done for each task: with a machine, the task, and a signal that says when to stop. */
export type SwarmJob<T, R> = (sandbox: Sandbox, task: T, signal: AbortSignal) => Promise<R> | R;

/** What became of a task. */
export interface SwarmTask<R> {
  /** Its place among the tasks, from 0. */
  index: number;
  /** Where it stands. */
  status: TaskStatus;
  /** What the job returned for it; undefined unless it succeeded. */
  result: R | undefined;
  /** What its last attempt threw; undefined if it succeeded. */
  error: unknown;
  /** Its attempts, in their order. */
  attempts: SwarmAttempt[];
}

/** What a swarm did. */
export interface SwarmReport<R> extends Omit<PlanReport, 'tasks'> {
  /** Each task, in the order in which they were given. */
  tasks: SwarmTask<R>[];
  /** The results of the tasks that are done, in the order in which the tasks were given. */
  results: R[];
}

/** What the machines of a swarm are to be, and how it works through its tasks. */
export interface SwarmOptions extends Omit<CreateOptions, 'name'> {
  /** Tasks that are under way at once. Default: 8. */
  concurrency?: number | undefined;
  /** How often a task that failed is tried again, each time in a new machine. Default: 0. */
  retries?: number | undefined;
  /** Milliseconds that one attempt may take once its machine runs. Default: for ever. */
  taskTimeoutMs?: number | undefined;
  /** Called after each change; an error in it ends the swarm. */
  onProgress?: ((progress: SwarmProgress) => void) | undefined;
}

/** How long a swarm's machine waits for room in line: a burst beyond the budgets takes longer and does not fail. */
const QUEUE_TIMEOUT_MS = 600_000;

/** The longest that a timer can wait. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/**
 * Runs a job on each task, each on a machine of its own, and answers when all have ended, well or not.
 *
 * The job is called with a machine, a task and a signal that is aborted when the attempt's time is up or the swarm is
 * aborted. What it throws is its task's error and harms no other. An aborted swarm ends its machines, waits for that, and
 * rejects with the signal's reason; a machine that was still being made is ended in the background. Fails with
 * {@link InvalidArgument} where `concurrency`, `retries` or `taskTimeoutMs` is out of range.
 */
export async function swarm<T, R>(
  job: SwarmJob<T, R>,
  tasks: Iterable<T>,
  options: SwarmOptions = {},
): Promise<SwarmReport<R>> {
  options.signal?.throwIfAborted();
  const run = new Swarm(job, [...tasks], options);
  return await run.report();
}

class Swarm<T, R> {
  readonly #job: SwarmJob<T, R>;
  readonly #tasks: T[];
  readonly #options: SwarmOptions;
  readonly #concurrency: number;
  readonly #plan: SwarmPlan;
  readonly #began = performance.now();
  /** Aborted by the caller, or when the swarm itself goes wrong. */
  readonly #abort = new AbortController();
  readonly #results = new Map<number, R>();
  readonly #errors = new Map<number, unknown>();

  constructor(job: SwarmJob<T, R>, tasks: T[], options: SwarmOptions) {
    const { concurrency = 8, retries = 0, taskTimeoutMs } = options;
    if (taskTimeoutMs !== undefined && !(taskTimeoutMs > 0 && taskTimeoutMs <= MAX_TIMER_MS)) {
      const message = `taskTimeoutMs must be above 0 and at most ${MAX_TIMER_MS}, not ${taskTimeoutMs}`;
      throw new InvalidArgument(message, { code: 'invalid_argument' });
    }
    this.#plan = callSync(() => new SwarmPlan(tasks.length, concurrency, retries));
    this.#job = job;
    this.#tasks = tasks;
    this.#options = options;
    this.#concurrency = concurrency;
  }

  async report(): Promise<SwarmReport<R>> {
    const { signal } = this.#options;
    const stop = () => this.#stop(signal?.reason);
    signal?.addEventListener('abort', stop, { once: true });
    const lanes = Array.from({ length: Math.min(this.#concurrency, this.#tasks.length) }, () => this.#lane());
    try {
      await Promise.all(lanes);
    } catch (error) {
      this.#stop(error);
      await Promise.allSettled(lanes);
    } finally {
      signal?.removeEventListener('abort', stop);
    }
    this.#abort.signal.throwIfAborted();
    const { tasks, ...rest } = this.#plan.report(this.#now());
    const told = tasks.map((task) => ({
      ...task,
      result: this.#results.get(task.index),
      error: this.#errors.get(task.index),
    }));
    const results = [...this.#results].sort(([a], [b]) => a - b).map(([, result]) => result);
    return { ...rest, tasks: told, results };
  }

  /** Works until nothing waits. A task that is to be tried again finds at least the lane in which it failed. */
  async #lane(): Promise<void> {
    for (let index = this.#next(); index !== null; index = this.#next()) {
      await this.#attempt(index);
    }
  }

  #next(): number | null {
    const index = this.#plan.next(this.#now());
    if (index !== null) {
      this.#tell();
    }
    return index;
  }

  async #attempt(index: number): Promise<void> {
    let hadMachine = false;
    let result: R;
    try {
      const sandbox = await Sandbox.create({
        queueTimeoutMs: QUEUE_TIMEOUT_MS,
        ...defined(this.#options),
        signal: this.#abort.signal,
      });
      hadMachine = true;
      try {
        this.#plan.ready(index, sandbox.sandboxId, this.#now());
        this.#tell();
        result = await this.#work(sandbox, this.#tasks[index] as T);
      } finally {
        await sandbox.destroy();
      }
    } catch (error) {
      this.#abort.signal.throwIfAborted();
      this.#failed(index, error, hadMachine);
      return;
    }
    this.#errors.delete(index);
    this.#results.set(index, result);
    this.#plan.succeeded(index, this.#now());
    this.#tell();
  }

  /** The job, as long as it may take. What goes on of it after that does so without its machine, and is not heard. */
  async #work(sandbox: Sandbox, task: T): Promise<R> {
    const { taskTimeoutMs } = this.#options;
    const late = new AbortController();
    const signal = AbortSignal.any([late.signal, this.#abort.signal]);
    const timer =
      taskTimeoutMs === undefined
        ? undefined
        : setTimeout(() => {
            const message = `the task took longer than ${taskTimeoutMs} ms`;
            late.abort(new DeadlineExceeded(message, { code: 'timeout' }));
          }, taskTimeoutMs);
    try {
      return await new Promise<R>((resolve, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason), { once: true });
        signal.throwIfAborted();
        const work = async () => this.#job(sandbox, task, signal);
        work().then(resolve, reject);
      });
    } finally {
      clearTimeout(timer);
    }
  }

  #failed(index: number, error: unknown, hadMachine: boolean): void {
    this.#errors.set(index, error);
    // What was refused is refused again; what went wrong in a machine may go well in another.
    const refused = error instanceof ForkyardError && !hadMachine ? error.code : undefined;
    const message = error instanceof Error ? error.message || error.name : String(error);
    this.#plan.failed(index, message, refused, this.#now());
    this.#tell();
  }

  #stop(reason: unknown): void {
    this.#plan.cancel(this.#now());
    this.#abort.abort(reason);
  }

  #tell(): void {
    try {
      this.#options.onProgress?.(this.#plan.progress(this.#now()));
    } catch (error) {
      // Not the task's: it ends the swarm, from wherever it was told.
      this.#stop(error);
    }
  }

  #now(): number {
    return performance.now() - this.#began;
  }
}

/** The options that were given: one that is undefined has its default. */
function defined(options: SwarmOptions): SwarmOptions {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}
