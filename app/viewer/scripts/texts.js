/* All words of the page, in the reader's language; numbers as that language writes them. */

export const LANGUAGES = { en: "English", de: "Deutsch" };

const loaded = {};
const places = [new URL("../texts/", import.meta.url)];
let language = "en";

async function read(place, name) {
  return (await fetch(new URL(`${name}.json`, place))).json();
}

/** Load the words of a part that not every page has. */
export async function addTexts(place) {
  places.push(place);
  for (const name in loaded) Object.assign(loaded[name], await read(place, name));
}

/** Load a language and make it the page's; English stands in for what it lacks. */
export async function useLanguage(wanted) {
  const known = wanted in LANGUAGES ? wanted : "en";
  for (const name of new Set(["en", known])) {
    loaded[name] ??= Object.assign({}, ...(await Promise.all(places.map((place) => read(place, name)))));
  }
  language = known;
  document.documentElement.lang = known;
  for (const element of document.querySelectorAll("[data-text]")) {
    element.textContent = t(element.dataset.text);
  }
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", t(element.dataset.label));
  }
}

export function currentLanguage() {
  return language;
}

/** The language that the browser prefers among those there are. */
export function preferredLanguage() {
  const wanted = navigator.languages.map((tag) => tag.slice(0, 2));
  return wanted.find((tag) => tag in LANGUAGES) ?? "en";
}

/**
 * A text, its {places} filled with values.
 * @param {string} key of texts/en.json
 */
export function t(key, values = {}) {
  const text = loaded[language]?.[key] ?? loaded.en?.[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (place, name) => (name in values ? String(values[name]) : place));
}

/** The words for one of the service's codes; the code itself where a newer service has new ones. */
export function word(group, code) {
  const key = `${group}.${code}`;
  const text = t(key);
  return text === key ? String(code) : text;
}

export function percent(share, digits = 1) {
  return new Intl.NumberFormat(language, {
    style: "percent",
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  }).format(share);
}

export function points(difference) {
  return new Intl.NumberFormat(language, {
    minimumFractionDigits: 1,
    maximumFractionDigits: 1,
    signDisplay: "exceptZero",
  }).format(100 * difference);
}

export function number(value, digits = 2) {
  return new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(value);
}

export function fixed(value, digits) {
  return new Intl.NumberFormat(language, {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  }).format(value);
}

export function list(items) {
  return new Intl.ListFormat(language, { type: "conjunction" }).format(items);
}

export function dateTime(date) {
  return new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "long" }).format(date);
}
