/* One image to look at closely: zoom and pan by wheel, fingers, mouse, keys and buttons. */

import { h } from "./dom.js";
import { drawHeatmap } from "./heatmap.js";

const MAX_ZOOM = 16;
const STEP = 1.35;
const PAN_SHARE = 0.15;
const CLICK_TOLERANCE_PIXELS = 5;

/**
 * A view: `zoom` 1 shows the whole image; `x` and `y` are the image's place in the middle of the
 * viewport, as shares of its width and height.
 * @typedef {{zoom: number, x: number, y: number}} View
 */

/**
 * Dispatches `view` when the reader moved, `toggle` when the heatmap is to be shown or hidden,
 * `unshowable` when the browser cannot show the image.
 */
export class Stage extends EventTarget {
  #view = { zoom: 1, x: 0.5, y: 0.5 };
  #pointers = new Map();
  #moved = 0;
  #drawn = [];
  #image = h("img", { alt: "", draggable: "false" });
  #canvas = h("canvas", { "aria-hidden": "true", class: "heat" });
  #plane = h("div", { class: "plane" }, this.#image, this.#canvas);

  /** @param {HTMLElement} viewport focusable; takes over what is in it */
  constructor(viewport) {
    super();
    this.viewport = viewport;
    viewport.replaceChildren(this.#plane);
    this.#image.addEventListener("load", () => {
      this.#plane.hidden = false;
      this.#lay();
    });
    this.#image.addEventListener("error", () => this.dispatchEvent(new Event("unshowable")));
    new ResizeObserver(() => this.#lay()).observe(viewport);
    viewport.addEventListener("wheel", (event) => this.#onWheel(event), { passive: false });
    viewport.addEventListener("keydown", (event) => this.#onKey(event));
    viewport.addEventListener("pointerdown", (event) => this.#onDown(event));
    viewport.addEventListener("pointermove", (event) => this.#onMove(event));
    for (const type of ["pointerup", "pointercancel"]) {
      viewport.addEventListener(type, (event) => this.#onUp(event));
    }
    viewport.addEventListener("dblclick", (event) => this.#zoomAt(event, STEP * STEP));
  }

  /** Show another image from its beginning, or the same one as it is. */
  show(url, alternative) {
    this.#image.alt = alternative;
    if (this.#image.getAttribute("src") === url) return;
    // Until it is there: the image before it must not stand under this one's name.
    this.#plane.hidden = true;
    this.#image.src = url;
    this.reset();
  }

  /** Forget the image. */
  clear() {
    this.#plane.hidden = true;
    this.#image.removeAttribute("src");
    this.#image.alt = "";
    this.drawHeatmap(null, { opacity: 0, asCells: false });
  }

  /** Lay a heatmap over the image, or none. */
  drawHeatmap(heatmap, { opacity, asCells }) {
    if (this.#drawn[0] !== heatmap || this.#drawn[1] !== asCells) {
      drawHeatmap(this.#canvas, heatmap, asCells);
      this.#drawn = [heatmap, asCells];
    }
    this.#canvas.style.setProperty("opacity", opacity);
  }

  get view() {
    return { ...this.#view };
  }

  /** Look elsewhere, without an event. */
  set view(view) {
    const zoom = Math.min(MAX_ZOOM, Math.max(1, view.zoom));
    // The image's edge never comes further in than the viewport's own.
    const clamp = (place, shown) => {
      const half = Math.min(0.5, shown / 2);
      return Math.min(1 - half, Math.max(half, place));
    };
    const shown = this.#shownShares(zoom);
    this.#view = { zoom, x: clamp(view.x, shown.x), y: clamp(view.y, shown.y) };
    this.#place();
  }

  reset() {
    this.#go({ zoom: 1, x: 0.5, y: 0.5 });
  }

  zoomIn() {
    this.#go({ ...this.#view, zoom: this.#view.zoom * STEP });
  }

  zoomOut() {
    this.#go({ ...this.#view, zoom: this.#view.zoom / STEP });
  }

  /** Move the view by shares of the viewport. */
  pan(right, down) {
    const shown = this.#shownShares(this.#view.zoom);
    const { zoom, x, y } = this.#view;
    this.#go({ zoom, x: x + right * shown.x, y: y + down * shown.y });
  }

  #go(view) {
    this.view = view;
    this.dispatchEvent(new Event("view"));
  }

  /* The whole image's size in the viewport, in CSS pixels. */
  #fitted() {
    const { clientWidth, clientHeight } = this.viewport;
    const { naturalWidth, naturalHeight } = this.#image;
    const scale = Math.min(clientWidth / (naturalWidth || 1), clientHeight / (naturalHeight || 1));
    return { width: naturalWidth * scale, height: naturalHeight * scale };
  }

  #shownShares(zoom) {
    const { width, height } = this.#fitted();
    return {
      x: this.viewport.clientWidth / (width * zoom || 1),
      y: this.viewport.clientHeight / (height * zoom || 1),
    };
  }

  #lay() {
    const { width, height } = this.#fitted();
    this.#plane.style.setProperty("width", `${width}px`);
    this.#plane.style.setProperty("height", `${height}px`);
    this.view = this.#view;
  }

  #place() {
    const { width, height } = this.#fitted();
    const { zoom, x, y } = this.#view;
    const left = this.viewport.clientWidth / 2 - x * width * zoom;
    const top = this.viewport.clientHeight / 2 - y * height * zoom;
    this.#plane.style.setProperty("transform", `translate(${left}px, ${top}px) scale(${zoom})`);
    this.viewport.classList.toggle("is-zoomed", zoom > 1);
  }

  /* Zoom, with the place under the pointer kept where it is. */
  #zoomAt(event, factor) {
    const shown = this.#shownShares(this.#view.zoom);
    const box = this.viewport.getBoundingClientRect();
    const right = ((event.clientX - box.left) / box.width - 0.5) * shown.x;
    const down = ((event.clientY - box.top) / box.height - 0.5) * shown.y;
    const zoom = Math.min(MAX_ZOOM, Math.max(1, this.#view.zoom * factor));
    const kept = 1 - this.#view.zoom / zoom;
    this.#go({ zoom, x: this.#view.x + right * kept, y: this.#view.y + down * kept });
  }

  #onWheel(event) {
    const before = this.#view.zoom;
    this.#zoomAt(event, Math.exp(-event.deltaY / 400));
    // At either end the page scrolls on.
    if (this.#view.zoom !== before) event.preventDefault();
  }

  #onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const actions = {
      "+": () => this.zoomIn(),
      "=": () => this.zoomIn(),
      "-": () => this.zoomOut(),
      0: () => this.reset(),
      ArrowLeft: () => this.pan(-PAN_SHARE, 0),
      ArrowRight: () => this.pan(PAN_SHARE, 0),
      ArrowUp: () => this.pan(0, -PAN_SHARE),
      ArrowDown: () => this.pan(0, PAN_SHARE),
      h: () => this.dispatchEvent(new Event("toggle")),
      H: () => this.dispatchEvent(new Event("toggle")),
    };
    const action = actions[event.key];
    if (action === undefined) return;
    event.preventDefault();
    action();
  }

  #onDown(event) {
    this.#moved = 0;
    this.#pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  }

  #onMove(event) {
    const last = this.#pointers.get(event.pointerId);
    if (last === undefined) return;
    const here = { x: event.clientX, y: event.clientY };
    const spread = this.#spread();
    this.#pointers.set(event.pointerId, here);
    const [right, down] = [(here.x - last.x) / this.#pointers.size, (here.y - last.y) / this.#pointers.size];
    this.#moved += Math.abs(here.x - last.x) + Math.abs(here.y - last.y);
    if (this.#moved > CLICK_TOLERANCE_PIXELS) this.viewport.setPointerCapture(event.pointerId);
    this.pan(-right / this.viewport.clientWidth, -down / this.viewport.clientHeight);
    if (spread > 0) this.#zoomAt(event, this.#spread() / spread);
  }

  /* A click without a movement brings its place to the middle: nobody has to drag. */
  #onUp(event) {
    const began = this.#pointers.delete(event.pointerId);
    if (!began || event.type === "pointercancel" || this.#moved > CLICK_TOLERANCE_PIXELS) return;
    if (this.#view.zoom === 1) return;
    const box = this.viewport.getBoundingClientRect();
    this.pan((event.clientX - box.left) / box.width - 0.5, (event.clientY - box.top) / box.height - 0.5);
  }

  /* Between two fingers, in pixels; 0 where there are not two. */
  #spread() {
    if (this.#pointers.size !== 2) return 0;
    const [a, b] = [...this.#pointers.values()];
    return Math.hypot(a.x - b.x, a.y - b.y);
  }
}
