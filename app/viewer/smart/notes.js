/* What a launch or a record refused, in words. */

import { h, icon } from "../scripts/dom.js";
import { t } from "../scripts/texts.js";
import { Refusal } from "./settings.js";

/** One sentence; whatever it quotes is text. */
export function refusalText(error) {
  if (!(error instanceof Refusal)) return t("refused.unexpected");
  return t(`refused.${error.kind}`, error.values);
}

/** A note under a title of the texts; `heading`: its element, as the outline around it needs it. */
export function refusalNote(title, error, heading = "h3") {
  return h(
    "div",
    { class: "decision decision-failed" },
    // The launch page has no symbols; words are enough.
    document.getElementById("icon-failed") && icon("failed"),
    h("div", {}, h(heading, {}, t(title)), h("p", {}, refusalText(error))),
  );
}
