/* The answer to the selected image, or why there is none, and what its reader can do with it. */

import { problemNote, readings, wholeAnswer } from "./answer.js";
import { fill, h } from "./dom.js";
import { feedbackForm } from "./feedback.js";
import { asText, copyText } from "./report.js";
import { currentLanguage, t } from "./texts.js";

export class AnswerPane {
  #root;
  #page;
  #shown = "";

  /**
   * @param {HTMLElement} root
   * @param {Object} page whose images it shows; it asks, repeats and says what happened
   */
  constructor(root, page) {
    this.#root = root;
    this.#page = page;
  }

  /** @param {import("./cases.js").Case | null} shownCase the selected image, if one is */
  show(shownCase) {
    if (shownCase === null) {
      this.#shown = "";
      fill(this.#root, readings());
      return;
    }
    const job = this.#page.mainJob(shownCase);
    const seconds = this.#page.secondsOf(job);
    const key = [shownCase.number, job.state, job.answer?.request_id, seconds, job.attempts, currentLanguage()].join();
    if (key === this.#shown) return; // what its reader is doing in it stays
    this.#shown = key;
    fill(this.#root, heading(shownCase), this.#body(shownCase, job, seconds));
  }

  #body(shownCase, job, seconds) {
    if (job.state === "answered") return [wholeAnswer(job.answer, job.answeredAt), this.#actions(shownCase, job)];
    if (job.state !== "failed") {
      return h("div", { class: `state state-${job.state}` }, t(`state.${job.state}`, { seconds }));
    }
    const again = () => {
      this.#page.queue.repeat(job);
      this.#root.focus(); // the button is gone
    };
    return [
      problemNote(job.problem),
      job !== shownCase.refusal && h("button", { type: "button", on: { click: again } }, t("again")),
    ];
  }

  #actions(shownCase, job) {
    const { receipts, isDrawn } = shownCase;
    const { answer, answeredAt } = job;
    const copy = () => copyText(asText(answer, { answeredAt, isDrawn }), (text) => this.#page.say(text));
    return [
      this.#page.chart?.reportForm(shownCase, job),
      this.#page.settings.feedback && feedbackForm(answer, receipts),
      h(
        "div",
        { class: "actions" },
        h("button", { type: "button", on: { click: () => window.print() } }, t("print")),
        h("button", { type: "button", on: { click: copy } }, t("copy")),
      ),
      h("p", { class: "fine answer-notice" }, t("notice")),
    ];
  }
}

function heading({ number, name, isDrawn }) {
  return h(
    "p",
    { class: "answer-of" },
    t("answer.of", { number }),
    " ",
    h("b", {}, name),
    isDrawn && [" ", h("span", { class: "drawn" }, t("drawn"))],
  );
}
