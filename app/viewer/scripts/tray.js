/* The images at the left, each with what became of it so far. */

import { decisionBadge } from "./answer.js";
import { byId, fill, h, icon, update } from "./dom.js";
import { t } from "./texts.js";

const THUMBNAIL_SIDE = 96;
const rows = new Map();

/** A job's state as sign and words. */
export function stateBadge(job, secondsLeft) {
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
  const list = byId("cases");
  const wanted = entries.map((entry) => rowOf(entry, entry.shownCase === selected, receiver, secondsLeft));
  const isSame = wanted.length === list.children.length && wanted.every((row, index) => row === list.children[index]);
  if (!isSame) fill(list, wanted);
  const done = entries.filter(({ job }) => job.isOver).length;
  byId("clear").hidden = entries.length === 0;
  update(
    byId("progress"),
    entries.length > 1 && [
      h("progress", { max: entries.length, value: done, "aria-label": t("progress.label") }),
      h("p", { class: "fine" }, t("progress", { done, all: entries.length })),
    ],
  );
}

/* Its elements stay while its words change: a button that is replaced under a finger is not pressed. */
function rowOf({ shownCase, job }, isSelected, receiver, secondsLeft) {
  if (!rows.has(shownCase)) rows.set(shownCase, newRow(shownCase, receiver));
  const { element, open, remove, words } = rows.get(shownCase);
  const { number, name, isDrawn } = shownCase;
  element.classList.toggle("is-selected", isSelected);
  if (isSelected) open.setAttribute("aria-current", "true");
  else open.removeAttribute("aria-current");
  for (const attribute of ["aria-label", "title"]) remove.setAttribute(attribute, t("remove", { number }));
  update(
    words,
    h("span", { class: "case-name" }, h("strong", {}, number), " ", name),
    isDrawn && h("span", { class: "drawn" }, t("drawn")),
    stateBadge(job, secondsLeft),
  );
  return element;
}

function newRow(shownCase, receiver) {
  const { number, file } = shownCase;
  const words = h("span", { class: "case-words" });
  const open = h(
    "button",
    { type: "button", class: "case-open", "data-key": `open-${number}`, on: { click: () => receiver.select(shownCase) } },
    thumbnail(file),
    words,
  );
  const remove = h(
    "button",
    {
      type: "button",
      class: "quiet case-remove",
      "data-key": `remove-${number}`,
      on: { click: () => receiver.remove(shownCase) },
    },
    "×",
  );
  return { element: h("li", { class: "case" }, open, remove), open, remove, words };
}

/* Small pictures in place of many large decoded ones. */
function thumbnail(file) {
  const canvas = h("canvas", { class: "case-picture", width: THUMBNAIL_SIDE, height: THUMBNAIL_SIDE, "aria-hidden": "true" });
  paint(canvas, file);
  return canvas;
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

/** Forget an image's row with its small picture. */
export function forgetRow(shownCase) {
  rows.delete(shownCase);
}
