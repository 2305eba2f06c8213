/* The images of this sitting and what was asked about each; kept in memory alone. */

import { predict } from "./api.js";
import { Job } from "./queue.js";

/** What is asked where the reader chose nothing: evidence for the answer, not attention (docs/heatmaps.md). */
export const DEFAULT_METHOD = "grad-cam";

let count = 0;

/** One image. */
export class Case {
  #jobs = new Map();

  /**
   * @param {Blob} file
   * @param {{name: string, isDrawn?: boolean, messageId?: string | null}} known `isDrawn`: an example of
   *   this page; `messageId`: what the page that embeds this one calls it
   */
  constructor(file, { name, isDrawn = false, messageId = null }) {
    count += 1;
    this.number = count;
    this.file = file;
    this.name = name;
    this.isDrawn = isDrawn;
    this.messageId = messageId;
    this.url = URL.createObjectURL(file);
    this.canBeShown = true;
    this.receipts = new Map();
  }

  /**
   * The job of a question; the same question is asked once.
   * @param {import("./queue.js").Queue} queue
   * @param {{model?: string, method?: string, explained?: string, tta?: boolean}} question
   */
  ask(queue, question) {
    const key = keyOf(question);
    if (!this.#jobs.has(key)) {
      const job = new Job((signal) => predict(this.file, question, signal));
      this.#jobs.set(key, job);
      queue.add(job);
    }
    return this.#jobs.get(key);
  }

  /** The job of a question, if it was asked. */
  asked(question) {
    return this.#jobs.get(keyOf(question)) ?? null;
  }

  /** All that was asked. */
  get jobs() {
    return [...this.#jobs.values()];
  }

  /** Forget the image. */
  close(queue) {
    for (const job of this.#jobs.values()) queue.drop(job);
    URL.revokeObjectURL(this.url);
  }
}

function keyOf({ model = "", method = "", explained = "", tta = false }) {
  return JSON.stringify([model, method, explained, tta]);
}
