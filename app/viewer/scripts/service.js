/* What there is: the service's settings and models, asked for until they come. */

import { listModels, readSettings } from "./api.js";
import { Job } from "./queue.js";

const AGAIN_MILLISECONDS = 10_000;
const FOR_WANT_OF_A_CREDENTIAL = [401, 403]; // asked again when there is one

/**
 * Ask through the queue, so that a page opened too early waits too.
 * @param {import("./queue.js").Queue} queue
 * @param {{takeSettings: (settings: Object) => void, takeModels: (models: Object[]) => void}} receiver
 * @returns {Job} that asks for both
 */
export function askService(queue, { takeSettings, takeModels }) {
  const job = new Job(async () => {
    takeSettings(await readSettings());
    return listModels();
  });
  let timer = 0;
  let taken = null;
  const again = () => {
    timer = 0;
    if (job.state === "failed") queue.repeat(job);
  };
  queue.addEventListener("change", () => {
    if (job.state === "failed" && !FOR_WANT_OF_A_CREDENTIAL.includes(job.problem.status)) {
      timer ||= setTimeout(again, AGAIN_MILLISECONDS);
    }
    if (job.state !== "answered" || taken === job.answer) return;
    taken = job.answer;
    takeModels(taken);
  });
  queue.add(job);
  return job;
}
