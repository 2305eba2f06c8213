/* The images at the left, each with what became of it so far. */

import { decisionBadge } from "./answer.js";
import { byId, fill, h, icon } from "./dom.js";
import { t } from "./texts.js";

const THUMBNAIL_SIDE = 96;
const thumbnails = new Map();

/** A job's state as sign and words. */
function stateBadge(job, secondsLeft) {
  if (job.state === "answered") return decisionBadge(job.answer);
  const sign = { failed: "failed", offline: "offline" }[job.state] ?? "waiting";
  return h(
    "span",
    { class: `badge badge-${job.state}` },
    icon(sign),
    t(`state.${job.state}.short`, { seconds: secondsLeft }),
  );
}

/**
 * Fill the list.
 * @param {Array<{shownCase: Object, job: import("./queue.js").Job}>} entries
 * @param {Object | null} selected
 * @param {{select: (shownCase: Object) => void, remove: (shownCase: Object) => void}} receiver
 * @param {number} secondsLeft until a busy service is asked again
 */
export function showTray(entries, selected, receiver, secondsLeft) {
  fill(byId("cases"), entries.map((entry) => row(entry, entry.shownCase === selected, receiver, secondsLeft)));
  const done = entries.filter(({ job }) => job.isOver).length;
  byId("clear").hidden = entries.length === 0;
  fill(
    byId("progress"),
    entries.length > 1 && [
      h("progress", { max: entries.length, value: done, "aria-label": t("progress.label") }),
      h("p", { class: "fine" }, t("progress", { done, all: entries.length })),
    ],
  );
}

function row({ shownCase, job }, isSelected, receiver, secondsLeft) {
  const { number, name, isDrawn } = shownCase;
  return h(
    "li",
    { class: isSelected ? "case is-selected" : "case" },
    h(
      "button",
      {
        type: "button",
        class: "case-open",
        "data-key": `open-${number}`,
        "aria-current": isSelected ? "true" : null,
        on: { click: () => receiver.select(shownCase) },
      },
      thumbnail(shownCase),
      h(
        "span",
        { class: "case-words" },
        h("span", { class: "case-name" }, h("strong", {}, number), " ", name),
        isDrawn && h("span", { class: "drawn" }, t("drawn")),
        stateBadge(job, secondsLeft),
      ),
    ),
    h(
      "button",
      {
        type: "button",
        class: "quiet case-remove",
        "data-key": `remove-${number}`,
        "aria-label": t("remove", { number }),
        title: t("remove", { number }),
        on: { click: () => receiver.remove(shownCase) },
      },
      "×",
    ),
  );
}

/* Small pictures in place of many large decoded ones. */
function thumbnail(shownCase) {
  if (!thumbnails.has(shownCase)) {
    const canvas = h("canvas", { class: "case-picture", width: THUMBNAIL_SIDE, height: THUMBNAIL_SIDE, "aria-hidden": "true" });
    thumbnails.set(shownCase, canvas);
    paint(canvas, shownCase.file);
  }
  return thumbnails.get(shownCase);
}

async function paint(canvas, file) {
  try {
    const picture = await createImageBitmap(file, { resizeHeight: THUMBNAIL_SIDE, resizeQuality: "medium" });
    canvas.getContext("2d").drawImage(picture, (THUMBNAIL_SIDE - picture.width) / 2, 0);
    picture.close();
  } catch {
    // The browser cannot read it; whether the service can is another question.
  }
}

/** Forget an image's small picture. */
export function forgetThumbnail(shownCase) {
  thumbnails.delete(shownCase);
}
