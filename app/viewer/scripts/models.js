/* All models' answers for one image side by side, and how far they agree. */

import { decisionBadge, isRejected, problemNote, reasonsOf } from "./answer.js";
import { behaviour, share } from "./bars.js";
import { DEFAULT_METHOD } from "./cases.js";
import { fill, h } from "./dom.js";
import { drawHeatmap, flagNotes } from "./heatmap.js";
import { list, number, t, word } from "./texts.js";

const HEAT_OPACITY = 0.6;

/** The question that a model is asked for the comparison. */
export function questionOf(model) {
  return { model: `${model.name}@${model.version}`, method: DEFAULT_METHOD };
}

/**
 * Fill the panel.
 * @param {HTMLElement} root
 * @param {import("./cases.js").Case} shownCase
 * @param {Array<{model: Object, job: import("./queue.js").Job}>} asked every model with its job
 * @param {{repeat: (job: import("./queue.js").Job) => void, secondsLeft: number}} page `secondsLeft`: until a
 *   busy service is asked again
 */
export function showModels(root, shownCase, asked, { repeat, secondsLeft }) {
  const answered = asked.filter(({ job }) => job.state === "answered");
  const refusing = answered.filter(({ job }) => isOutside(job.answer));
  const guesses = answered.filter(({ job }) => cannotTell(job.answer));
  const why = withheldBecause(asked, refusing);
  fill(
    root,
    h("p", { class: "agreement" }, agreement(asked, answered, refusing)),
    refusing.length > 0 && guesses.length > 0 && h("p", { class: "flag" }, t("models.withheld")),
    h(
      "ul",
      { class: "cards" },
      asked.map(({ model, job }) =>
        h(
          "li",
          { class: "card" },
          h("h3", {}, model.title, model.default && h("span", { class: "tag" }, t("model.default"))),
          h("p", { class: "fine" }, `${model.name}@${model.version}`),
          why && job.answer && cannotTell(job.answer)
            ? h("p", {}, t(why))
            : outcome(shownCase, job, { repeat, secondsLeft }),
        ),
      ),
    ),
    h("p", { class: "fine" }, t("models.explained")),
  );
}

function isOutside(answer) {
  return isRejected(answer) && answer.decision.reasons.includes("out-of-distribution");
}

/* Whether the model answered without a rule for pictures that are unlike the training images. */
function cannotTell(answer) {
  return answer.out_of_distribution === null && !isRejected(answer);
}

/* Why such an answer is not shown: it is a guess where another model refuses the picture, which one still may. */
function withheldBecause(asked, refusing) {
  if (refusing.length > 0) return "models.withheld.card";
  return asked.every(({ job }) => job.isOver) ? "" : "models.withheld.until";
}

function agreement(asked, answered, refusing) {
  if (asked.length === 0) return t("models.none");
  const still = asked.filter(({ job }) => !job.isOver).length;
  if (still > 0) return t("models.waiting", { done: asked.length - still, all: asked.length });
  if (refusing.length > 0) {
    return t("models.refused", { models: list(refusing.map(({ model }) => model.title)) });
  }
  const votes = Map.groupBy(
    answered.filter(({ job }) => !isRejected(job.answer)),
    ({ job }) => job.answer.predicted_class.label,
  );
  const voters = [...votes.values()].flat().length;
  if (voters < 2) return t("models.too-few");
  const [label, agreeing] = [...votes].toSorted((a, b) => b[1].length - a[1].length)[0];
  if (agreeing.length === voters) return t("models.agree", { all: voters, class: word("class", label) });
  const said = [...votes].map(([name, who]) => `${word("class", name)}: ${who.length}`);
  return t("models.disagree", { answers: said.join("; ") });
}

function outcome(shownCase, job, { repeat, secondsLeft }) {
  if (job.state === "answered") return said(shownCase, job.answer);
  if (job.state !== "failed") return h("p", { class: "waiting" }, t(`state.${job.state}`, { seconds: secondsLeft }));
  return [problemNote(job.problem), h("button", { type: "button", on: { click: () => repeat(job) } }, t("again"))];
}

function said(shownCase, answer) {
  const reasons = reasonsOf(answer).map((reason) => h("li", {}, word("reason", reason)));
  if (isRejected(answer)) return [decisionBadge(answer), h("ul", {}, reasons)];
  const { label, malignancy } = answer.predicted_class;
  return [
    decisionBadge(answer),
    thumbnail(shownCase, answer.heatmap),
    answer.heatmap && flagNotes(answer.heatmap),
    h("p", { class: "card-class" }, word("class", label)),
    h("p", {}, behaviour(malignancy), " ", t("confidence", { share: share(answer.confidence) })),
    !answer.calibrated && h("p", { class: "fine" }, t("uncalibrated")),
    reasons.length > 0 && h("ul", { class: "fine" }, reasons),
    answer.ensemble && h("p", { class: "fine" }, members(answer.ensemble)),
  ];
}

function members(ensemble) {
  const said = ensemble.members.map(
    (member) => `${member.model.name}: ${word("class", member.predicted_class)} ${share(member.confidence)}`,
  );
  return t("models.members", { answers: said.join("; "), bits: number(ensemble.disagreement, 3) });
}

function thumbnail(shownCase, heatmap) {
  if (!shownCase.canBeShown) return null;
  const canvas = h("canvas", { "aria-hidden": "true", class: "heat" });
  drawHeatmap(canvas, heatmap);
  canvas.style.setProperty("opacity", HEAT_OPACITY);
  return h("div", { class: "thumbnail" }, h("img", { src: shownCase.url, alt: "" }), canvas);
}
