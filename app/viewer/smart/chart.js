/* The viewer with a patient's chart: whose it is, its images, and what may be written into it. */

import { Case } from "../scripts/cases.js";
import { byId, fill, h } from "../scripts/dom.js";
import { addTexts, t } from "../scripts/texts.js";
import { fetchImage, findImages, nameOf } from "./images.js";
import { refusalNote, refusalText } from "./notes.js";
import { finish, forget } from "./oauth.js";
import { readPatient } from "./patient.js";
import { Record } from "./record.js";
import { ReportWriter } from "./report.js";
import { LAUNCH_PAGE, PLAIN_PAGE, readLaunchSettings } from "./settings.js";

const KEPT_IN_ADDRESS = ["lang", "theme"];

/** Open the chart that a record launched this page for. */
export async function openChart(page) {
  const given = takeFromAddress();
  document.head.append(h("link", { rel: "stylesheet", href: new URL("chart.css", import.meta.url).href }));
  await addTexts(new URL("texts/", import.meta.url));
  page.chart = new Chart(page);
  await page.chart.open(given);
}

/* What the authorization server gave is good once, and to stay in no history. */
function takeFromAddress() {
  const address = new URL(window.location.href);
  const given = address.searchParams;
  const kept = new URLSearchParams([...given].filter(([name]) => KEPT_IN_ADDRESS.includes(name)));
  window.history.replaceState(null, "", `${address.pathname}${kept.size > 0 ? `?${kept}` : ""}`);
  return given;
}

class Chart {
  #banner = h("section", { class: "chart-banner" });
  #panel = h("section", { class: "chart-images" });
  #state = "opening";
  #problem = null;
  #patient = null;
  #found = null;
  #record = null;
  #context = null;
  #writer = null;
  #imageOf = new WeakMap();
  #openings = new Map();
  /* The image that the reader asked for last, and what was on the desk then. */
  #wanted = null;
  /* What came onto an empty desk although the reader wanted another one. */
  #unasked = undefined;

  constructor(page) {
    this.page = page;
    document.querySelector("header.head").after(this.#banner);
    document.querySelector(".tray-tools").after(this.#panel);
    this.show();
  }

  async open(given) {
    try {
      this.#context = await finish(await readLaunchSettings(), given);
      this.#record = new Record(this.#context);
      if (this.#state === "left") this.#record.close();
      const patient = await readPatient(this.#record, this.#context.patient);
      if (this.#state === "left") return;
      this.#patient = patient;
      this.#writer = new ReportWriter(this.#record, this.#context, {
        showPatient: () => this.#who(),
        say: (text) => this.page.say(text),
      });
      this.#state = "open";
      // What was answered before this has no form yet.
      this.page.translate();
    } catch (error) {
      this.#record?.close();
      if (this.#state === "left") return;
      this.#problem = error;
      this.#state = "failed";
      this.show();
      this.page.say(`${t("chart.failed")} ${refusalText(error)}`);
      return;
    }
    this.page.say(t("chart.opened"));
    await this.#look();
  }

  async #look() {
    this.#found = null;
    this.show();
    this.#found = await findImages(this.#record, this.#context.patient);
    this.show();
  }

  /** End it: nothing of the patient is left on the page, and the token is gone. */
  leave() {
    this.page.clear();
    this.#record?.close();
    forget();
    // Until the browser has gone there, which may take long.
    this.#state = "left";
    this.#patient = null;
    this.#found = null;
    this.#writer?.close();
    this.#writer = null;
    this.show();
    window.location.replace(`${PLAIN_PAGE}${window.location.search}`);
  }

  /** What may be written of an answer; nothing without a chart. */
  reportForm(shownCase, job) {
    return this.#writer?.form(shownCase, job, this.#imageOf.get(shownCase));
  }

  async #take(image) {
    const before = this.#openings.get(image.key);
    if (before?.shownCase && this.page.cases.includes(before.shownCase)) {
      this.#wanted = null;
      this.page.select(before.shownCase);
      return;
    }
    this.#wanted = { key: image.key, beside: this.page.selected };
    const { sitting } = this.page;
    if (before?.isFetching) return;
    this.#openings.set(image.key, { isFetching: true });
    this.show();
    try {
      const blob = await fetchImage(image, this.#record, this.page.settings.max_image_bytes);
      if (this.page.sitting !== sitting) {
        this.#openings.delete(image.key);
        this.show();
        return;
      }
      const shownCase = new Case(blob, { name: nameOf(image) });
      this.#imageOf.set(shownCase, image);
      this.#openings.set(image.key, { shownCase });
      const shown = this.page.selected;
      this.page.addCase(shownCase);
      // Who has chosen something else since then stays there.
      const isWanted = this.#wanted?.key === image.key && [this.#wanted.beside, this.#unasked].includes(shown);
      if (!isWanted) this.#unasked = shown === null ? shownCase : this.#unasked;
      else if (this.page.cases.includes(shownCase)) this.page.select(shownCase);
    } catch (problem) {
      this.#openings.set(image.key, { problem });
      this.page.say(refusalText(problem));
    }
    this.show();
  }

  /** Write all words anew. */
  show() {
    this.#showBanner();
    this.#panel.hidden = this.#state !== "open";
    if (this.#state === "open") this.#showImages();
  }

  #showBanner() {
    this.#banner.setAttribute("aria-label", t("chart.patient"));
    if (this.#state === "opening") {
      fill(this.#banner, h("p", { role: "status" }, t("chart.opening")));
    } else if (this.#state === "left") {
      fill(this.#banner);
      fill(this.#panel);
    } else if (this.#state === "failed") {
      fill(this.#banner, refusalNote("chart.failed", this.#problem, "h2"), h("a", { href: LAUNCH_PAGE }, t("chart.launch")));
    } else {
      fill(
        this.#banner,
        this.#who(),
        h("button", { type: "button", "data-key": "leave", on: { click: () => this.leave() } }, t("chart.leave")),
      );
    }
  }

  #who() {
    const { name, birthDate, sex, identifier } = this.#patient;
    const fact = (key, value) => h("span", {}, t(key), " ", h("bdi", {}, value || t("patient.none")));
    return h(
      "p",
      { class: "patient" },
      h("strong", {}, h("bdi", {}, name || t("patient.no-name"))),
      fact("patient.born", birthDate),
      fact("patient.sex", sex && t(`sex.${sex}`)),
      fact("patient.identifier", identifier),
    );
  }

  #showImages() {
    const found = this.#found;
    fill(
      this.#panel,
      h("h3", {}, t("images.title")),
      found === null && h("p", { class: "fine" }, t("images.looking")),
      found !== null && [
        found.images.length === 0 && h("p", { class: "fine" }, t("images.none")),
        h("ul", {}, found.images.map((image) => h("li", {}, this.#line(image)))),
        found.more && h("p", { class: "fine" }, t("images.more")),
        found.problems.map(({ kind, problem }) =>
          h("p", { class: "fine flag" }, !["other-subject", "withdrawn"].includes(problem.kind) && `${t("images.problem", { kind })} `, refusalText(problem)),
        ),
        h("button", { type: "button", class: "quiet", "data-key": "look", on: { click: () => this.#look() } }, t("images.again")),
      ],
    );
  }

  #line(image) {
    const { isFetching, shownCase, problem } = this.#openings.get(image.key) ?? {};
    const words = [
      h("span", { class: "chart-image-title" }, h("bdi", {}, image.title || t("images.untitled"))),
      h("span", { class: "fine" }, `${image.kind} ${image.date.slice(0, 10)}`),
    ];
    if (image.problem) return h("div", { class: "chart-image" }, words, h("span", { class: "fine" }, refusalText(image.problem)));
    const isOpen = shownCase !== undefined && this.page.cases.includes(shownCase);
    return [
      h(
        "button",
        {
          type: "button",
          class: "chart-image",
          "data-key": image.key,
          "aria-busy": isFetching ? "true" : null,
          on: { click: () => this.#take(image) },
        },
        words,
        isFetching && h("span", { class: "fine" }, t("images.fetching")),
        isOpen && h("span", { class: "fine" }, t("images.open")),
      ),
      problem && h("p", { class: "fine flag", role: "alert" }, refusalText(problem)),
    ];
  }
}
