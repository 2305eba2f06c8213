/* Two images of one lesion beside each other, looked at together. */

import { decisionBadge, isRejected } from "./answer.js";
import { LABELS, share } from "./bars.js";
import { fill, h } from "./dom.js";
import { Stage } from "./stage.js";
import { points, t, word } from "./texts.js";

/** Chooses two of the cases; dispatches `choose` when the reader took another one. */
export class Times extends EventTarget {
  #chosen = [null, null];
  #cases = [];
  #answerOf = () => null;

  /** @param {HTMLElement} root of index.html; filled here */
  constructor(root) {
    super();
    this.root = root;
    this.viewports = [0, 1].map(() => h("div", { class: "viewport", tabindex: "0", role: "group" }));
    this.stages = this.viewports.map((viewport) => new Stage(viewport));
    this.stages.forEach((stage, index) =>
      stage.addEventListener("view", () => {
        this.stages[1 - index].view = stage.view;
      }),
    );
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
   * @param {(shownCase: Object) => Object | null} answerOf a case's answer, if there is one yet
   */
  show(cases, answerOf) {
    this.#cases = cases;
    this.#answerOf = answerOf;
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
    for (const part of [...this.choices, ...this.said, this.change]) fill(part);
    for (const viewport of this.viewports) viewport.removeAttribute("aria-label");
  }

  #swap() {
    this.#chosen.reverse();
    this.#show();
  }

  #show() {
    const pair = this.#chosen.map((number) => this.#cases.find((one) => one.number === number));
    const answers = pair.map((one) => this.#answerOf(one));
    this.note.textContent = t("times.note");
    this.swapButton.textContent = t("times.swap");
    pair.forEach((one, index) => {
      this.words[index].textContent = t(index === 0 ? "times.earlier" : "times.later");
      this.viewports[index].setAttribute("aria-label", t("stage.image", { number: one.number }));
      this.stages[index].show(one.url, t("stage.image", { number: one.number }));
      fill(
        this.choices[index],
        this.#cases.map((other) =>
          h("option", { value: other.number, selected: other === one }, `${other.number} ${other.name}`),
        ),
      );
      fill(this.said[index], answers[index] === null ? t("state.waiting") : decisionBadge(answers[index]));
    });
    fill(this.change, changes(pair, answers));
  }
}

function changes(pair, answers) {
  if (pair[0] === pair[1]) return h("p", {}, t("times.same"));
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
        ["class", "times.earlier", "times.later", "times.difference"].map((key, index) =>
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
