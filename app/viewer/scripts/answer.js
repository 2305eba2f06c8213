/* An answer in the order in which it is to be read: decision, reasons, class, figures, origin. */

import { operatingPoints, behaviour, predictionSets, probabilityTable, share, uncertainty } from "./bars.js";
import { h, icon } from "./dom.js";
import { dateTime, fixed, t, word } from "./texts.js";

const ACTIONS = ["report", "refer", "reject"];
const OF_THE_PICTURE = ["out-of-distribution", "poor-quality"];
const OF_PROBABILITIES = ["malignancy", "low-confidence", "large-set", "disagreement"];

/** `report`, `refer` or `reject`; an action that this page does not know is a refusal too. */
export function actionOf(answer) {
  const { action } = answer.decision;
  return ACTIONS.includes(action) ? action : "reject";
}

/** Whether there is no answer but a refusal. */
export function isRejected(answer) {
  return actionOf(answer) === "reject";
}

/**
 * Why an answer is not simply reported. Of a refused picture only what is wrong with the picture: the
 * other reasons come from probabilities that are withheld, and would be a guess at the lesion.
 */
export function reasonsOf(answer) {
  const { reasons } = answer.decision;
  return isRejected(answer) ? reasons.filter((reason) => !OF_PROBABILITIES.includes(reason)) : reasons;
}

/** Whether the picture is one of those that the model's measured figures do not hold for. */
export function isDoubtful(answer) {
  return answer.decision.reasons.some((reason) => OF_THE_PICTURE.includes(reason));
}

/** What is to become of an answer, as sign and words. */
export function decisionBadge(answer) {
  const action = actionOf(answer);
  return h("span", { class: `badge badge-${action}` }, icon(action), t(`decision.${action}.short`));
}

/** The decision with its reasons. */
export function decision(answer) {
  const action = actionOf(answer);
  const reasons = reasonsOf(answer);
  return h(
    "div",
    { class: `decision decision-${action}` },
    icon(action),
    h(
      "div",
      {},
      h("h2", {}, t(`decision.${action}`)),
      reasons.length > 0
        ? h("ul", {}, reasons.map((reason) => h("li", {}, word("reason", reason))))
        : h("p", {}, t(`decision.${action}.why`)),
    ),
  );
}

/** What an answer can begin with, for a reader who has none yet. */
export function readings() {
  return h(
    "div",
    { class: "readings" },
    h("p", { class: "fine" }, t("answer.none")),
    ACTIONS.map((action) =>
      h(
        "div",
        { class: `decision decision-${action}` },
        icon(action),
        h("div", {}, h("h2", {}, t(`decision.${action}`)), h("p", {}, t(`answer.none.${action}`))),
      ),
    ),
  );
}

/** Everything of an answer. */
export function wholeAnswer(answer, answeredAt) {
  if (isRejected(answer)) {
    return [
      decision(answer),
      h("p", { class: "block" }, t("rejected.explained")),
      picture(answer),
      origin(answer, answeredAt),
    ];
  }
  return [
    decision(answer),
    result(answer),
    h("section", { class: "block" }, h("h3", {}, t("probabilities.title")), probabilityTable(answer)),
    operatingPoints(answer),
    predictionSets(answer),
    uncertainty(answer),
    picture(answer),
    origin(answer, answeredAt),
  ];
}

function result(answer) {
  const { label, malignancy } = answer.predicted_class;
  return h(
    "div",
    { class: "result" },
    h("p", { class: "fine" }, t("result.title")),
    h("p", { class: "result-class" }, word("class", label)),
    h(
      "p",
      { class: "result-line" },
      behaviour(malignancy),
      h("span", {}, t("confidence", { share: share(answer.confidence) })),
      !answer.calibrated && h("strong", {}, t("uncalibrated")),
    ),
    isDoubtful(answer) && h("p", { class: "flag" }, t("result.doubtful")),
  );
}

function picture(answer) {
  const { issues } = answer.quality;
  return h(
    "section",
    { class: "block" },
    h("h3", {}, t("picture.title")),
    issues.length > 0
      ? [h("p", {}, t("quality.issues")), h("ul", {}, issues.map((issue) => h("li", {}, word("issue", issue))))]
      : h("p", {}, t("quality.none")),
    h("p", {}, noveltyLine(answer.out_of_distribution)),
  );
}

/** How unlike the training images a picture is, beside the limit; null where there is no rule for it. */
export function noveltyLine(novelty) {
  if (novelty === null) return t("novelty.unknown");
  const { score, threshold } = novelty;
  const key = score <= threshold ? "novelty.inside" : "novelty.outside";
  // Digits enough to tell a score that is close to its threshold from it.
  const digits = Math.abs(score - threshold) < 0.01 ? 5 : 2;
  return t(key, { score: fixed(score, digits), threshold: fixed(threshold, digits) });
}

function origin(answer, answeredAt) {
  const { model, image } = answer;
  const rows = [
    ["origin.model", `${model.name}@${model.version}`],
    ["origin.runtime", model.runtime],
    ["origin.digest", model.digest],
    ["origin.request", answer.request_id],
    ["origin.image", `${image.width} × ${image.height}, ${image.media_type}`],
    ["origin.time", dateTime(answeredAt)],
  ];
  return h(
    "section",
    { class: "block origin" },
    h("h3", {}, t("origin.title")),
    h("dl", {}, rows.map(([key, value]) => [h("dt", {}, t(key)), h("dd", {}, value)])),
  );
}

/**
 * Why there is no answer, in the service's own words where it had some.
 * @param {import("./api.js").Problem} problem
 * @param {string} title key of the texts; else whether the image was refused
 */
export function problemNote(problem, title = "") {
  const isRefusal = problem.status >= 400 && problem.status < 500;
  const known = t(`problem.${problem.kind}`);
  const isOurs = problem.detail === "" && known !== `problem.${problem.kind}`;
  return h(
    "div",
    { class: "decision decision-failed" },
    icon("failed"),
    h(
      "div",
      {},
      h("h2", {}, t(title || (isRefusal ? "problem.refused" : "problem.failed"))),
      isOurs
        ? h("p", {}, known)
        : [
            problem.title && h("p", { lang: "en" }, h("strong", {}, problem.title)),
            problem.detail && h("p", { lang: "en" }, problem.detail),
          ],
      problem.requestId && h("p", { class: "fine" }, t("problem.request", { id: problem.requestId })),
    ),
  );
}
