/* A model's raw 7 x 7 map as a picture to lay over the image, drawn as the service draws it. */

import { h } from "./dom.js";
import { t, word } from "./texts.js";

const SIDE = 224;
/* The service's own scale, viridis, at 17 places (OpenCV's COLORMAP_VIRIDIS; between them it differs by
   at most 6 levels of 255): lightness grows with the value, and colour vision deficiency does not matter. */
const VIRIDIS = [
  [68, 1, 84], [72, 24, 106], [71, 45, 123], [66, 64, 134], [59, 82, 139], [51, 99, 141],
  [44, 114, 142], [38, 130, 142], [33, 144, 140], [31, 159, 136], [39, 173, 129], [62, 188, 116],
  [92, 200, 99], [130, 211, 77], [170, 220, 50], [213, 226, 26], [253, 231, 37],
];

/**
 * Draw a map relative to its own maximum: colour and opacity both grow with the value. The caller
 * scales the canvas's opacity; 0.6 is what the service's overlays have.
 * @param {HTMLCanvasElement} canvas
 * @param {{map: number[][], scale: number} | null} heatmap null, or a scale of 0, draws nothing
 * @param {boolean} asCells the 49 values as they are, in place of a smooth picture
 */
export function drawHeatmap(canvas, heatmap, asCells = false) {
  canvas.width = SIDE;
  canvas.height = SIDE;
  if (heatmap === null || heatmap.scale <= 0) return;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(SIDE, SIDE);
  for (let y = 0; y < SIDE; y += 1) {
    for (let x = 0; x < SIDE; x += 1) {
      const value = asCells ? cellAt(heatmap.map, y, x) : between(heatmap.map, y, x);
      const share = Math.min(1, Math.max(0, value / heatmap.scale));
      picture.data.set([...colour(share), Math.round(255 * share)], 4 * (SIDE * y + x));
    }
  }
  context.putImageData(picture, 0, 0);
}

/** Why nothing is to be read into a map, in words; to stand wherever it is shown. */
export function flagNotes(heatmap) {
  return heatmap.flags.map((flag) => h("p", { class: "flag" }, h("strong", {}, t("flag")), " ", word("flag", flag)));
}

function cellAt(map, y, x) {
  return map[Math.floor((y * map.length) / SIDE)][Math.floor((x * map.length) / SIDE)];
}

/* Linear between the cells' centres, the outermost values beyond: OpenCV's INTER_LINEAR. */
function between(map, y, x) {
  const last = map.length - 1;
  const place = (pixel) => Math.min(last, Math.max(0, ((pixel + 0.5) * map.length) / SIDE - 0.5));
  const [row, column] = [place(y), place(x)];
  const [top, left] = [Math.floor(row), Math.floor(column)];
  const [bottom, right] = [Math.min(last, top + 1), Math.min(last, left + 1)];
  const above = mix(map[top][left], map[top][right], column - left);
  return mix(above, mix(map[bottom][left], map[bottom][right], column - left), row - top);
}

function colour(share) {
  const place = share * (VIRIDIS.length - 1);
  const index = Math.min(VIRIDIS.length - 2, Math.floor(place));
  return VIRIDIS[index].map((from, channel) => Math.round(mix(from, VIRIDIS[index + 1][channel], place - index)));
}

function mix(from, to, share) {
  return from + (to - from) * share;
}
