/* An answer as plain text, for a note or a mail; the file's name, which may name a patient, stays out. */

import { actionOf, isDoubtful, isRejected, noveltyLine, reasonsOf } from "./answer.js";
import { pooledNotes, share } from "./bars.js";
import { byId, fill, h } from "./dom.js";
import { dateTime, list, percent, t, word } from "./texts.js";

/** All that the page says about an answer. */
export function asText(answer, answeredAt) {
  const { model } = answer;
  const lines = [t("notice"), "", t(`decision.${actionOf(answer)}`)];
  lines.push(...reasonsOf(answer).map((reason) => `- ${word("reason", reason)}`), "");
  if (!isRejected(answer)) lines.push(...resultLines(answer), "");
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
  const { predicted_class: predicted, probabilities } = answer;
  return [
    `${word("class", predicted.label)} (${word("malignancy", predicted.malignancy)})`,
    t("confidence", { share: share(answer.confidence) }),
    ...(answer.calibrated ? [] : [t("uncalibrated")]),
    ...(isDoubtful(answer) ? [t("result.doubtful")] : []),
    "",
    ...Object.entries(probabilities).map(([label, value]) => `${word("class", label)}: ${share(value)}`),
    "",
    ...answer.operating_points.map(
      (point) =>
        `${word("target", point.target)} ${share(point.probability)}: ` +
        t(point.positive ? "points.above" : "points.below", {
          threshold: percent(point.threshold),
          sensitivity: percent(point.required_sensitivity, 0),
        }),
    ),
    ...answer.prediction_sets.map((set) =>
      t("sets.line", {
        coverage: percent(set.coverage, 0),
        classes: list(set.labels.map((label) => word("class", label))),
      }),
    ),
    ...pooledNotes(answer),
  ];
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
