/* How images come in: dropped, pasted, chosen, photographed, or drawn for a first look. */

import { byId, fill, h, icon } from "./dom.js";
import { t } from "./texts.js";

/** Pictures that `python -m training.examples` drew; of no patient. */
export const EXAMPLES = ["nv", "mel", "vasc"].map((label) => ({
  name: `drawn-${label}.jpg`,
  url: new URL(`../examples/drawn-${label}.jpg`, import.meta.url).href,
}));

/**
 * Listen to everything that brings images.
 * @param {{addFiles: (files: Iterable<File>) => void, addExample: (example: Object) => void,
 *   openCamera: () => void}} receiver
 */
export function listenForImages(receiver) {
  const files = byId("files");
  byId("choose").addEventListener("click", () => files.click());
  byId("capture").addEventListener("click", receiver.openCamera);
  files.addEventListener("change", () => {
    receiver.addFiles(files.files);
    files.value = "";
  });
  document.addEventListener("paste", (event) => {
    const pasted = event.clipboardData?.files ?? [];
    if (pasted.length > 0) receiver.addFiles(pasted);
  });
  // Anywhere on the page: a picture that misses its zone must not replace the page.
  for (const type of ["dragenter", "dragover"]) {
    document.addEventListener(type, (event) => {
      event.preventDefault();
      document.body.classList.add("is-dropping");
    });
  }
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) document.body.classList.remove("is-dropping");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("is-dropping");
    receiver.addFiles(event.dataTransfer?.files ?? []);
  });
}

/** Write the words of all that brings images. */
export function showIntake(receiver) {
  fill(byId("choose"), icon("images"), t("choose"));
  fill(byId("capture"), icon("camera"), t("capture"));
  fill(
    byId("welcome"),
    icon("images"),
    h("h2", {}, t("welcome.title")),
    h("p", {}, t("welcome.how")),
    h("p", { class: "fine" }, t("welcome.private")),
    h("h3", {}, t("examples.title")),
    h("p", { class: "fine" }, t("examples.explained")),
    h(
      "ul",
      { class: "examples" },
      EXAMPLES.map((example, index) =>
        h(
          "li",
          {},
          h(
            "button",
            { type: "button", on: { click: () => receiver.addExample(example) } },
            h("img", { src: example.url, alt: "", width: 132, height: 99 }),
            t("examples.one", { number: index + 1 }),
          ),
        ),
      ),
    ),
  );
}
