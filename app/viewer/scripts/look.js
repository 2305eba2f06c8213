/* One image under its heatmap, with what the reader may set about both. */

import { LABELS } from "./bars.js";
import { fill, h, update } from "./dom.js";
import { flagNotes } from "./heatmap.js";
import { Stage } from "./stage.js";
import { number, percent, t, word } from "./texts.js";

const SERVICE_OPACITY = 0.6;

/**
 * The middle of the page. Dispatches `explain` when another heatmap is asked for.
 * `explain` is `{method, explained}`; `explained` is "" for the predicted class.
 */
export class Look extends EventTarget {
  explain = { method: "grad-cam", explained: "" };
  #heatmap = null;
  #state = "";
  #again = null;
  #hasAttention = true;
  #overlay = { heatmap: null, url: "" };
  #case = null;

  /** @param {HTMLElement} root of index.html; filled here */
  constructor(root) {
    super();
    this.root = root;
    this.viewport = h("div", { class: "viewport", tabindex: "0", role: "group", "aria-describedby": "keys" });
    this.stage = new Stage(this.viewport);
    this.caption = h("p", { class: "caption" });
    this.note = h("div", { class: "heat-notes" });
    this.againButton = h("button", { type: "button", class: "heat-again", hidden: true, on: { click: () => this.#again?.() } });
    this.shown = h("input", { type: "checkbox", checked: true, on: { change: () => this.#draw() } });
    this.asCells = h("input", { type: "checkbox", on: { change: () => this.#draw() } });
    this.opacity = h("input", {
      type: "range", min: 0, max: 100, step: 5, value: 100 * SERVICE_OPACITY, on: { input: () => this.#draw() },
    });
    this.opacityShown = h("output");
    this.method = h("select", { on: { change: () => this.#choose() } });
    this.explained = h("select", { on: { change: () => this.#choose() } });
    this.stage.addEventListener("toggle", () => {
      this.shown.checked = !this.shown.checked;
      this.#draw();
    });
    this.stage.addEventListener("unshowable", () => {
      if (this.#case === null || !this.#case.canBeShown) return;
      this.#case.canBeShown = false;
      this.#showPicture();
      this.#draw();
    });
    this.translate();
  }

  /** Write all words anew. */
  translate() {
    this.viewport.setAttribute("aria-label", t("stage"));
    const button = (key, sign, action) =>
      h("button", { type: "button", "aria-label": t(key), title: t(key), "data-key": key, on: { click: action } }, sign);
    fill(
      this.root,
      this.caption,
      h("div", { class: "frame" }, this.viewport),
      h(
        "div",
        { class: "tools" },
        h(
          "div",
          { class: "zoom", role: "group", "aria-label": t("zoom") },
          button("zoom.out", "−", () => this.stage.zoomOut()),
          button("zoom.fit", t("zoom.fit.short"), () => this.stage.reset()),
          button("zoom.in", "+", () => this.stage.zoomIn()),
        ),
        h("label", { class: "check" }, this.shown, " ", t("heatmap")),
        h("label", { class: "slider" }, t("opacity"), " ", this.opacity, " ", this.opacityShown),
        h("label", {}, t("method"), " ", this.method),
        h("label", {}, t("explained"), " ", this.explained),
        h("label", { class: "check" }, this.asCells, " ", t("cells")),
      ),
      this.note,
      this.againButton,
      h("p", { class: "fine keys", id: "keys" }, t("keys")),
    );
    this.#fillChoices();
    this.#draw();
  }

  /**
   * Show an image.
   * @param {import("./cases.js").Case} shownCase
   * @param {{heatmap: Object | null, state: string, again: (() => void) | null, hasAttention: boolean}} found
   *   `state`: a key of the texts that says why there is no heatmap, or ""; `again`: asks for it once more
   */
  show(shownCase, { heatmap, state, again, hasAttention }) {
    this.#case = shownCase;
    update(
      this.caption,
      h("strong", {}, `${shownCase.number}`),
      ` ${shownCase.name} `,
      shownCase.isDrawn && h("span", { class: "drawn" }, t("drawn")),
    );
    this.#heatmap = heatmap;
    this.#state = state;
    this.#again = again;
    this.#hasAttention = hasAttention;
    this.#fillChoices();
    this.#showPicture();
    this.#draw();
  }

  #fillChoices() {
    const methods = this.#hasAttention ? ["grad-cam", "attention"] : ["grad-cam"];
    if (!methods.includes(this.explain.method)) this.explain = { method: "grad-cam", explained: "" };
    const option = (value, text, chosen) => h("option", { value, selected: value === chosen }, text);
    update(this.method, methods.map((name) => option(name, word("method", name), this.explain.method)));
    update(
      this.explained,
      option("", t("explained.predicted"), this.explain.explained),
      LABELS.map((label) => option(label, word("class", label), this.explain.explained)),
    );
    this.explained.disabled = this.explain.method === "attention";
  }

  #choose() {
    const method = this.method.value;
    this.explain = { method, explained: method === "attention" ? "" : this.explained.value };
    this.dispatchEvent(new Event("explain"));
  }

  /** Forget the image. */
  clear() {
    this.#case = null;
    this.#heatmap = null;
    this.#state = "";
    this.#again = null;
    this.stage.clear();
    this.#forgetOverlay();
    fill(this.caption);
    this.#draw();
  }

  #showPicture() {
    const alternative = t("stage.image", { number: this.#case.number });
    if (this.#case.canBeShown) this.stage.show(this.#case.url, alternative);
    else if (this.#heatmap !== null) this.stage.show(this.#overlayUrl(), alternative);
    else this.stage.clear();
  }

  /* A format that the browser cannot show (TIFF): what the service drew is shown in its place. */
  #overlayUrl() {
    if (this.#overlay.heatmap !== this.#heatmap) {
      this.#forgetOverlay();
      const bytes = Uint8Array.from(atob(this.#heatmap.overlay), (letter) => letter.charCodeAt(0));
      const url = URL.createObjectURL(new Blob([bytes], { type: this.#heatmap.media_type }));
      this.#overlay = { heatmap: this.#heatmap, url };
    }
    return this.#overlay.url;
  }

  #forgetOverlay() {
    URL.revokeObjectURL(this.#overlay.url);
    this.#overlay = { heatmap: null, url: "" };
  }

  #draw() {
    const opacity = Number(this.opacity.value) / 100;
    this.opacityShown.textContent = percent(opacity, 0);
    const isDrawnByService = this.#case !== null && !this.#case.canBeShown;
    const drawn = this.shown.checked && !isDrawnByService ? this.#heatmap : null;
    this.stage.drawHeatmap(drawn, { opacity, asCells: this.asCells.checked });
    update(
      this.note,
      this.#state !== "" && h("p", {}, t(this.#state)),
      isDrawnByService && h("p", {}, t("stage.unshowable")),
      this.#heatmap !== null && legend(this.#heatmap),
    );
    this.againButton.textContent = t("again");
    this.againButton.hidden = this.#again === null;
  }
}

function legend(heatmap) {
  const explained = heatmap.explained_class;
  return [
    h(
      "p",
      { class: "legend" },
      h("span", {}, "0"),
      h("span", { class: "legend-scale", "aria-hidden": "true" }),
      h("span", {}, number(heatmap.scale, 3)),
      " ",
      explained === null
        ? t("legend.attention", { model: heatmap.model })
        : t("legend.class", { class: word("class", explained), model: heatmap.model }),
    ),
    flagNotes(heatmap),
  ];
}
