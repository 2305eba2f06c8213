/* Where a launch begins: from a record (`iss` and `launch` in the address), or by the reader's choice. */

import { byId, fill, h } from "../scripts/dom.js";
import { addTexts, preferredLanguage, t, useLanguage } from "../scripts/texts.js";
import { begin } from "./oauth.js";
import { refusalNote } from "./notes.js";
import { Refusal, readLaunchSettings } from "./settings.js";

const MAX_LAUNCH_LENGTH = 4096;

async function go(settings, issuer, launch) {
  fill(byId("launch"), h("p", {}, t("launch.going", { issuer })));
  try {
    window.location.replace(await begin(settings, issuer, launch));
  } catch (error) {
    showRefusal(error);
  }
}

function showRefusal(error) {
  fill(byId("launch"), refusalNote("launch.failed", error));
}

function showChoice(settings) {
  fill(
    byId("launch"),
    h("p", {}, t("launch.choose")),
    h(
      "ul",
      { class: "issuers" },
      settings.issuers.map((issuer) =>
        h("li", {}, h("button", { type: "button", on: { click: () => go(settings, issuer, "") } }, issuer)),
      ),
    ),
  );
}

async function start() {
  const given = new URLSearchParams(window.location.search);
  // What the record calls this launch is nobody else's business; and the library must not read it here.
  window.history.replaceState(null, "", window.location.pathname);
  document.documentElement.dataset.theme = "system";
  await addTexts(new URL("texts/", import.meta.url));
  await useLanguage(preferredLanguage());
  document.title = `DermHybrid: ${t("launch.title")}`;
  try {
    const settings = await readLaunchSettings();
    const [issuer, launch] = [given.get("iss"), given.get("launch") ?? ""];
    if (launch.length > MAX_LAUNCH_LENGTH || (launch !== "" && issuer === null)) throw new Refusal("no-launch");
    if (issuer === null) showChoice(settings);
    else await go(settings, issuer, launch);
  } catch (error) {
    showRefusal(error);
  }
}

await start();
