/* What a lesion turned out to be, sent back to the service that keeps such a record. */

import { Problem, sendFeedback } from "./api.js";
import { problemNote } from "./answer.js";
import { LABELS } from "./bars.js";
import { fill, h } from "./dom.js";
import { t, word } from "./texts.js";

const SOURCES = ["histo", "confocal", "follow_up", "consensus", "clinical"];

/**
 * The form for one answer.
 * @param {Object} answer
 * @param {Map<string, Object>} receipts by request id, filled here
 */
export function feedbackForm(answer, receipts) {
  const root = h("section", { class: "block feedback" });
  const choice = (name, group, values) =>
    h(
      "select",
      { name, required: true },
      h("option", { value: "" }, t("feedback.choose")),
      values.map((value) => h("option", { value }, word(group, value))),
    );
  const diagnosis = choice("diagnosis", "class", LABELS);
  const source = choice("source", "source", SOURCES);
  const note = h("div", { role: "status" });
  const sendButton = h("button", { type: "submit" }, t("feedback.send"));
  const form = h(
    "form",
    {
      on: {
        submit: (event) => {
          event.preventDefault();
          send();
        },
      },
    },
    h("p", { class: "fine" }, t("feedback.explained")),
    h("label", {}, t("feedback.diagnosis"), " ", diagnosis),
    h("label", {}, t("feedback.source"), " ", source),
    sendButton,
  );
  const showReceipt = (receipt) => {
    const key = receipt.agrees === null ? "none" : String(receipt.agrees);
    fill(note, h("p", {}, t(`feedback.agrees.${key}`, { number: receipt.answer_sequence })));
  };
  const send = async () => {
    sendButton.disabled = true;
    fill(note, h("p", {}, t("feedback.sending")));
    try {
      const receipt = await sendFeedback(answer.request_id, diagnosis.value, source.value);
      receipts.set(answer.request_id, receipt);
      showReceipt(receipt);
    } catch (error) {
      fill(note, problemNote(error instanceof Problem ? error : new Problem("unreadable"), "feedback.failed"));
    }
    sendButton.disabled = false;
  };
  if (receipts.has(answer.request_id)) showReceipt(receipts.get(answer.request_id));
  root.append(h("details", {}, h("summary", {}, t("feedback.title")), form, note));
  return root;
}
