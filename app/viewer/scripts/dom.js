/* Make elements. Text from anywhere only ever becomes a text node: there is no way to pass markup. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element.
 * @param {string} tag
 * @param {Object} properties `class`, `on` with listeners, `style` with CSS properties; the rest are
 *   attributes: `true` sets an empty one, `false`, null and undefined none.
 * @param {...(Node|string|number|null|undefined|false|Array)} children
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "on") {
      for (const [type, listener] of Object.entries(value)) element.addEventListener(type, listener);
    } else if (name === "style") {
      for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    } else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  element.append(...flat(children));
  return element;
}

function flat(children) {
  return children
    .flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : String(child)));
}

/** One of the symbols of index.html; decoration only, since words stand beside it. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("focusable", "false");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** The element of index.html with an id. */
export function byId(id) {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`index.html has no #${id}`);
  return element;
}

/** Replace what is in an element unless it is the same already; for children without listeners. */
export function update(element, ...children) {
  const wanted = flat(children).map((child) => (child instanceof Node ? child : document.createTextNode(child)));
  const there = [...element.childNodes];
  const isSame = there.length === wanted.length && there.every((node, index) => node.isEqualNode(wanted[index]));
  if (!isSame) element.replaceChildren(...wanted);
}

/** Replace what is in an element; the focus stays on the element of the same `data-key`. */
export function fill(element, ...children) {
  const active = document.activeElement;
  const key = element.contains(active) ? active.getAttribute("data-key") : null;
  element.replaceChildren(...flat(children));
  if (key !== null) {
    [...element.querySelectorAll("[data-key]")]
      .find((candidate) => candidate.getAttribute("data-key") === key)
      ?.focus({ preventScroll: true });
  }
}
