/* Probabilities as bars with their thresholds; every bar's value also stands beside it in words. */

import { h, icon } from "./dom.js";
import { list, number, percent, t, word } from "./texts.js";

const MALIGNANCY = {
  akiec: "pre-malignant",
  bcc: "malignant",
  bkl: "benign",
  df: "benign",
  mel: "malignant",
  nv: "benign",
  vasc: "benign",
};

/** The seven classes, in the order of every array of the service. */
export const LABELS = Object.keys(MALIGNANCY);

/** A probability in words; never rounded to certainty. */
export function share(value, digits = 1) {
  const least = 10 ** -(digits + 2);
  if (value > 1 - least) return `> ${percent(1 - least, digits)}`;
  if (value > 0 && value < least) return `< ${percent(least, digits)}`;
  return percent(value, digits);
}

/** Digits enough to tell a probability from each threshold that it stands beside. */
export function digitsBeside(probability, thresholds) {
  const isTold = (digits) =>
    thresholds.every((one) => one === probability || percent(one, digits) !== percent(probability, digits));
  return [1, 2, 3].find(isTold) ?? 4;
}

/** A class's behaviour as sign and word. */
export function behaviour(malignancy) {
  return h(
    "span",
    { class: `behaviour behaviour-${malignancy in SIGNS ? malignancy : "benign"}` },
    malignancy in SIGNS ? icon(malignancy) : null,
    word("malignancy", malignancy),
  );
}

const SIGNS = { malignant: true, "pre-malignant": true, benign: true };

/** All probabilities, the highest first. */
export function probabilityTable(answer) {
  const spread = answer.uncertainty?.standard_deviation ?? null;
  const rows = Object.entries(answer.probabilities).toSorted((a, b) => b[1] - a[1]);
  return h(
    "table",
    { class: "probabilities" },
    h("caption", {}, t(answer.calibrated ? "probabilities.calibrated" : "probabilities.uncalibrated")),
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        h("th", { scope: "col" }, t("class")),
        h("th", { scope: "col", class: "figure" }, t("probability")),
        spread && h("th", { scope: "col", class: "figure" }, t("spread")),
      ),
    ),
    h("tbody", {}, rows.map(([label, value]) => probabilityRow(answer, label, value, spread))),
  );
}

function probabilityRow(answer, label, value, spread) {
  const smallest = answer.prediction_sets
    .filter((set) => set.labels.includes(label))
    .toSorted((a, b) => a.coverage - b.coverage)[0];
  const isPredicted = label === answer.predicted_class.label;
  return h(
    "tr",
    { class: isPredicted ? "is-predicted" : null },
    h(
      "th",
      { scope: "row" },
      h("span", { class: "class-name" }, word("class", label)),
      " ",
      MALIGNANCY[label] && behaviour(MALIGNANCY[label]),
      smallest && h("span", { class: "in-set" }, t("set.member", { coverage: percent(smallest.coverage, 0) })),
      bar(value, MALIGNANCY[label] ?? "benign"),
    ),
    h("td", { class: "figure" }, share(value)),
    spread && h("td", { class: "figure" }, `± ${share(spread[label] ?? 0)}`),
  );
}

function bar(value, kind, thresholds = []) {
  return h(
    "span",
    { class: "bar", "aria-hidden": "true" },
    h("span", { class: `bar-filled bar-${kind}`, style: { width: `${100 * value}%` } }),
    thresholds.map((point, index) =>
      h("span", { class: `tick tick-${index}`, style: { left: `${100 * point.threshold}%` } }),
    ),
  );
}

/** Summed probabilities beside the thresholds that were chosen for them; null where there are none. */
export function operatingPoints(answer) {
  const targets = Map.groupBy(answer.operating_points, (point) => point.target);
  if (targets.size === 0) return null;
  return h(
    "section",
    { class: "block" },
    h("h3", {}, t("points.title")),
    [...targets].map(([target, points]) => gauge(target, points)),
    h("p", { class: "fine" }, t("points.explained")),
  );
}

function gauge(target, unsorted) {
  const points = unsorted.toSorted((a, b) => a.required_sensitivity - b.required_sensitivity);
  const { probability, labels } = points[0];
  const digits = digitsBeside(probability, points.map((point) => point.threshold));
  const name = word("target", target);
  return h(
    "div",
    { class: "gauge" },
    h(
      "p",
      { class: "gauge-title" },
      h("strong", {}, name),
      " ",
      labels.length > 1 && h("span", { class: "fine" }, `(${labels.join(" + ")}) `),
      h("span", { class: "figure" }, share(probability, digits)),
    ),
    bar(probability, "malignant", points),
    h(
      "ul",
      { class: "points" },
      points.map((point, index) =>
        h(
          "li",
          { class: point.positive ? "is-positive" : null },
          h("span", { class: `mark mark-${index}`, "aria-hidden": "true" }),
          besideThreshold(point, digits),
        ),
      ),
    ),
  );
}

/** On which side of its threshold a probability lies, in words. */
export function besideThreshold(point, digits) {
  return t(point.positive ? "points.above" : "points.below", {
    threshold: percent(point.threshold, digits),
    sensitivity: percent(point.required_sensitivity, 0),
  });
}

/** For which classes a set promises nothing, a sentence for each set that has such. */
export function pooledNotes(answer) {
  return answer.prediction_sets
    .filter((set) => set.pooled.length > 0)
    .map((set) =>
      t("sets.pooled", {
        coverage: percent(set.coverage, 0),
        classes: list(set.pooled.map((label) => word("class", label))),
      }),
    );
}

/** The classes that remain possible, in words; null where the model has no rule for it. */
export function predictionSets(answer) {
  if (answer.prediction_sets.length === 0) return null;
  return h(
    "section",
    { class: "block" },
    h("h3", {}, t("sets.title")),
    h(
      "ul",
      { class: "sets" },
      answer.prediction_sets.map((set) =>
        h(
          "li",
          {},
          t("sets.line", {
            coverage: percent(set.coverage, 0),
            classes: list(set.labels.map((label) => word("class", label))),
          }),
        ),
      ),
    ),
    pooledNotes(answer).map((note) => h("p", { class: "fine" }, note)),
    h("p", { class: "fine" }, t("sets.explained")),
  );
}

/** How many views have the same class, in words. */
export function uncertaintyLine({ views, same_class: sameClass }) {
  return t("uncertainty.line", { same: number(Math.round(views * sameClass), 0), views: number(views, 0) });
}

/** How far answers to the turned and mirrored picture lie apart; null where that was not asked. */
export function uncertainty(answer) {
  if (!answer.uncertainty) return null;
  return h(
    "section",
    { class: "block" },
    h("h3", {}, t("uncertainty.title")),
    h("p", {}, uncertaintyLine(answer.uncertainty)),
    h("p", { class: "fine" }, t("uncertainty.explained")),
  );
}
