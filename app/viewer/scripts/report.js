/* An answer as plain text, for a note or a mail; the file's name, which may name a patient, stays out. */

import { actionOf, isDoubtful, isRejected, noveltyLine, reasonsOf } from "./answer.js";
import { besideThreshold, digitsBeside, pooledNotes, share, uncertaintyLine } from "./bars.js";
import { byId, fill, h } from "./dom.js";
import { dateTime, list, percent, t, word } from "./texts.js";

/**
 * All that the page says about an answer.
 * @param {Object} answer
 * @param {{answeredAt: Date, isDrawn: boolean}} known
 */
export function asText(answer, { answeredAt, isDrawn }) {
  const { model } = answer;
  const action = actionOf(answer);
  const reasons = reasonsOf(answer);
  const lines = [t("notice"), "", ...(isDrawn ? [t("drawn"), ""] : []), t(`decision.${action}`)];
  if (reasons.length === 0) lines.push(t(`decision.${action}.why`));
  lines.push(...reasons.map((reason) => `- ${word("reason", reason)}`), "");
  lines.push(...(isRejected(answer) ? [t("rejected.explained")] : resultLines(answer)), "");
  const { issues } = answer.quality;
  lines.push(t(issues.length > 0 ? "quality.issues" : "quality.none"));
  lines.push(...issues.map((issue) => `- ${word("issue", issue)}`));
  lines.push(
    noveltyLine(answer.out_of_distribution),
    `${t("origin.model")}: ${model.name}@${model.version} (${model.runtime})`,
    `${t("origin.digest")}: ${model.digest}`,
    `${t("origin.request")}: ${answer.request_id}`,
    `${t("origin.time")}: ${dateTime(answeredAt)}`,
  );
  return lines.join("\n");
}

function resultLines(answer) {
  const { predicted_class: predicted, probabilities, operating_points: thresholds } = answer;
  return [
    `${word("class", predicted.label)} (${word("malignancy", predicted.malignancy)})`,
    t("confidence", { share: share(answer.confidence) }),
    ...(answer.calibrated ? [] : [t("uncalibrated")]),
    ...(isDoubtful(answer) ? [t("result.doubtful")] : []),
    "",
    ...Object.entries(probabilities).map(([label, value]) => `${word("class", label)}: ${share(value)}`),
    t(answer.calibrated ? "probabilities.calibrated" : "probabilities.uncalibrated"),
    "",
    ...thresholds.map(pointLine),
    ...(thresholds.length > 0 ? [t("points.explained"), ""] : []),
    ...answer.prediction_sets.map((set) =>
      t("sets.line", {
        coverage: percent(set.coverage, 0),
        classes: list(set.labels.map((label) => word("class", label))),
      }),
    ),
    ...pooledNotes(answer),
    ...(answer.prediction_sets.length > 0 ? [t("sets.explained")] : []),
    ...(answer.uncertainty ? ["", uncertaintyLine(answer.uncertainty), t("uncertainty.explained")] : []),
  ];
}

function pointLine(point) {
  const digits = digitsBeside(point.probability, [point.threshold]);
  return `${word("target", point.target)} ${share(point.probability, digits)}: ${besideThreshold(point, digits)}`;
}

/** Put a text on the clipboard, or show it to be copied by hand where the browser forbids that. */
export async function copyText(text, say) {
  try {
    await navigator.clipboard.writeText(text);
    say(t("copied"));
  } catch {
    const dialog = byId("copy");
    const area = h("textarea", { readonly: true, rows: 20, "aria-label": t("copy") }, text);
    fill(
      dialog,
      h("h2", {}, t("copy.by-hand")),
      area,
      h("button", { type: "button", on: { click: () => dialog.close() } }, t("close")),
    );
    dialog.setAttribute("aria-label", t("copy.by-hand"));
    dialog.showModal();
    area.select();
  }
}
