/* Two images of one lesion beside each other, looked at together. */

import { isRejected } from "./answer.js";
import { LABELS, share } from "./bars.js";
import { h, update } from "./dom.js";
import { Stage } from "./stage.js";
import { points, t, word } from "./texts.js";
import { stateBadge } from "./tray.js";

/** Chooses two of the cases; dispatches `choose` when the reader took another one. */
export class Times extends EventTarget {
  #chosen = [null, null];
  #cases = [];
  #jobOf = () => null;
  #secondsLeft = 0;

  /** @param {HTMLElement} root of index.html; filled here */
  constructor(root) {
    super();
    this.root = root;
    this.viewports = [0, 1].map(() => h("div", { class: "viewport", tabindex: "0", role: "group" }));
    this.stages = this.viewports.map((viewport) => new Stage(viewport));
    this.stages.forEach((stage, index) => {
      stage.addEventListener("view", () => {
        this.stages[1 - index].view = stage.view;
      });
      stage.addEventListener("unshowable", () => {
        const shown = this.#cases.find((one) => one.number === this.#chosen[index]);
        if (shown === undefined) return;
        shown.canBeShown = false;
        this.#show();
      });
    });
    this.choices = [0, 1].map((index) =>
      h("select", {
        on: {
          change: (event) => {
            this.#chosen[index] = Number(event.target.value);
            this.#show();
          },
        },
      }),
    );
    this.swapButton = h("button", { type: "button", on: { click: () => this.#swap() } });
    this.said = [h("div", { class: "times-said" }), h("div", { class: "times-said" })];
    this.change = h("div");
    const column = (index) =>
      h("div", { class: "times-column" }, this.labels[index], this.viewports[index], this.said[index]);
    this.words = [h("span"), h("span")];
    this.labels = [0, 1].map((index) => h("label", {}, this.words[index], " ", this.choices[index]));
    this.note = h("p", { class: "flag" });
    root.append(this.note, h("div", { class: "times-pair" }, column(0), column(1)), this.swapButton, this.change);
  }

  /**
   * Show the pair.
   * @param {Array<import("./cases.js").Case>} cases all there are, at least two
   * @param {(shownCase: Object) => import("./queue.js").Job} jobOf what was asked about a case
   * @param {number} secondsLeft until a busy service is asked again
   */
  show(cases, jobOf, secondsLeft) {
    this.#cases = cases;
    this.#jobOf = jobOf;
    this.#secondsLeft = secondsLeft;
    const numbers = cases.map((one) => one.number);
    if (!numbers.includes(this.#chosen[0])) this.#chosen[0] = numbers.find((n) => n !== this.#chosen[1]);
    if (!numbers.includes(this.#chosen[1])) this.#chosen[1] = numbers.find((n) => n !== this.#chosen[0]);
    this.#show();
  }

  /** Forget both. */
  clear() {
    this.#cases = [];
    this.#chosen = [null, null];
    for (const stage of this.stages) stage.clear();
    for (const part of [...this.choices, ...this.said, this.change]) update(part);
    for (const viewport of this.viewports) viewport.removeAttribute("aria-label");
  }

  #swap() {
    this.#chosen.reverse();
    this.#show();
  }

  #show() {
    const pair = this.#chosen.map((number) => this.#cases.find((one) => one.number === number));
    const jobs = pair.map((one) => this.#jobOf(one));
    this.note.textContent = t("times.note");
    this.swapButton.textContent = t("times.swap");
    pair.forEach((one, index) => {
      this.words[index].textContent = t(index === 0 ? "times.first" : "times.second");
      this.viewports[index].setAttribute("aria-label", t("stage.image", { number: one.number }));
      if (one.canBeShown) this.stages[index].show(one.url, t("stage.image", { number: one.number }));
      else this.stages[index].clear();
      update(
        this.choices[index],
        this.#cases.map((other) =>
          h("option", { value: other.number, selected: other === one }, `${other.number} ${other.name}`),
        ),
      );
      update(
        this.said[index],
        stateBadge(jobs[index], this.#secondsLeft),
        !one.canBeShown && h("p", {}, t("times.unshowable")),
      );
    });
    update(this.change, changes(pair, jobs));
  }
}

function changes(pair, jobs) {
  const answers = jobs.map((job) => job.answer);
  if (pair[0] === pair[1]) return h("p", {}, t("times.same"));
  if (jobs.some((job) => job.state === "failed")) return h("p", {}, t("times.rejected"));
  if (answers.includes(null)) return h("p", {}, t("times.waiting"));
  if (answers.some(isRejected)) return h("p", {}, t("times.rejected"));
  if (answers[0].model.digest !== answers[1].model.digest) return h("p", {}, t("times.other-model"));
  return h(
    "table",
    { class: "changes" },
    h("caption", {}, t("times.caption")),
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        ["class", "times.first", "times.second", "times.difference"].map((key, index) =>
          h("th", { scope: "col", class: index > 0 ? "figure" : null }, t(key)),
        ),
      ),
    ),
    h(
      "tbody",
      {},
      LABELS.map((label) => {
        const [before, after] = answers.map((answer) => answer.probabilities[label] ?? 0);
        return h(
          "tr",
          {},
          h("th", { scope: "row" }, word("class", label)),
          [share(before), share(after), points(after - before)].map((text) => h("td", { class: "figure" }, text)),
        );
      }),
    ),
  );
}
