/* Language and colours, in the address and nowhere else: nothing is stored on the machine. */

import { byId, fill, h } from "./dom.js";
import { LANGUAGES, currentLanguage, preferredLanguage, t, useLanguage } from "./texts.js";

const THEMES = ["system", "light", "dark"];

function inAddress(name) {
  return new URL(window.location.href).searchParams.get(name) ?? "";
}

function putInAddress(name, value) {
  const address = new URL(window.location.href);
  address.searchParams.set(name, value);
  window.history.replaceState(null, "", address);
}

function useTheme(theme) {
  document.documentElement.dataset.theme = THEMES.includes(theme) ? theme : "system";
}

/**
 * Take both from the address or the browser, and let the reader change them.
 * @param {() => void} onLanguage called when all words are to be written anew
 */
export async function readPreferences(onLanguage) {
  useTheme(inAddress("theme"));
  await useLanguage(inAddress("lang") || preferredLanguage());
  byId("theme").addEventListener("change", (event) => {
    useTheme(event.target.value);
    putInAddress("theme", event.target.value);
  });
  byId("language").addEventListener("change", async (event) => {
    try {
      await useLanguage(event.target.value);
      putInAddress("lang", event.target.value);
    } catch {
      // Its words cannot be had now: the page stays in the language that it has.
    }
    showPreferences();
    onLanguage();
  });
  showPreferences();
}

function showPreferences() {
  const option = (value, text, chosen) => h("option", { value, selected: value === chosen }, text);
  fill(
    byId("language"),
    Object.entries(LANGUAGES).map(([tag, name]) => option(tag, name, currentLanguage())),
  );
  const theme = document.documentElement.dataset.theme;
  fill(byId("theme"), THEMES.map((name) => option(name, t(`theme.${name}`), theme)));
}
