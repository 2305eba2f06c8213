/* Ask a few things at a time; wait where the service is busy or cannot be reached, then go on. */

import { Problem, isReachable } from "./api.js";

const MAX_AT_ONCE = 3;
const MAX_ATTEMPTS = 30;
const MAX_BROKEN_CONNECTIONS = 5;
const LOOK_AGAIN_MILLISECONDS = 2000;
const MEANT_TO_COME_AGAIN = [429, 503]; // with the header Retry-After

/**
 * Something that is asked of the service.
 *
 * `state` is `waiting`, `asking`, `busy` (until the queue's `busyUntil`), `offline`, `answered` (with
 * `answer` and `answeredAt`) or `failed` (with `problem`).
 */
export class Job {
  /** @param {(signal: AbortSignal) => Promise<Object>} ask */
  constructor(ask) {
    this.ask = ask;
    this.controller = new AbortController();
    this.begin();
  }

  /** As if it were new. */
  begin() {
    this.state = "waiting";
    this.answer = null;
    this.answeredAt = null;
    this.problem = null;
    this.attempts = 0;
    this.brokenConnections = 0;
  }

  get isOver() {
    return this.state === "answered" || this.state === "failed";
  }
}

/** Runs jobs in the order they came; dispatches `change` whenever one's state changed. */
export class Queue extends EventTarget {
  #waiting = [];
  #asking = 0;
  // After a refusal one request finds out whether there is room again, before more follow.
  #room = MAX_AT_ONCE;
  #busyUntil = 0;
  #offline = false;
  #pauseTimer = 0;
  #lookTimer = 0;

  constructor() {
    super();
    window.addEventListener("online", () => this.#lookForService());
  }

  /** When to ask a busy service again, in milliseconds of `Date.now()`. */
  get busyUntil() {
    return this.#busyUntil;
  }

  add(job) {
    this.#waiting.push(job);
    this.#go();
  }

  /** Ask what failed once more. */
  repeat(job) {
    job.begin();
    this.add(job);
  }

  /** Forget a job; its answer is not waited for. */
  drop(job) {
    this.#waiting = this.#waiting.filter((other) => other !== job);
    job.controller.abort();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }

  #go() {
    const pause = this.#busyUntil - Date.now();
    if (pause > 0) {
      clearTimeout(this.#pauseTimer);
      this.#pauseTimer = setTimeout(() => this.#go(), pause);
    } else if (!this.#offline) {
      while (this.#asking < this.#room && this.#waiting.length) this.#run(this.#waiting.shift());
    }
    this.#changed();
  }

  async #run(job) {
    this.#asking += 1;
    job.attempts += 1;
    job.state = "asking";
    try {
      job.answer = await job.ask(job.controller.signal);
      job.answeredAt = new Date();
      job.state = "answered";
      this.#room = Math.min(MAX_AT_ONCE, this.#room + 1);
    } catch (error) {
      if (!job.controller.signal.aborted) this.#afterProblem(job, error);
    }
    this.#asking -= 1;
    this.#go();
  }

  #afterProblem(job, error) {
    const problem = error instanceof Problem ? error : new Problem("unreadable");
    const seconds = MEANT_TO_COME_AGAIN.includes(problem.status) ? problem.retryAfterSeconds : null;
    if (seconds !== null && job.attempts < MAX_ATTEMPTS) {
      this.#room = 1;
      this.#busyUntil = Math.max(this.#busyUntil, Date.now() + 1000 * seconds);
      job.state = "busy";
      this.#waiting.unshift(job);
    } else if (problem.kind === "unreachable" && job.brokenConnections < MAX_BROKEN_CONNECTIONS) {
      job.brokenConnections += 1;
      job.state = "offline";
      this.#waiting.unshift(job);
      this.#offline = true;
      this.#lookLater();
    } else {
      job.problem = problem;
      job.state = "failed";
    }
  }

  async #lookForService() {
    if (!this.#offline) return;
    if (await isReachable()) {
      this.#offline = false;
      this.#go();
    } else {
      this.#lookLater();
    }
  }

  #lookLater() {
    clearTimeout(this.#lookTimer);
    this.#lookTimer = setTimeout(() => this.#lookForService(), LOOK_AGAIN_MILLISECONDS);
  }
}
