/* Wire the page: what there is, what is selected, and who shows it. */

import { AnswerPane } from "./answer-pane.js";
import { decision, isRejected, problemNote } from "./answer.js";
import { Problem, setCredential } from "./api.js";
import { hasCamera, openCamera } from "./camera.js";
import { Case, DEFAULT_METHOD } from "./cases.js";
import { byId, fill, h, update } from "./dom.js";
import { Embedder } from "./embed.js";
import { listenForImages, showIntake } from "./intake.js";
import { Look } from "./look.js";
import { questionOf, showModels } from "./models.js";
import { readPreferences } from "./preferences.js";
import { Job, Queue } from "./queue.js";
import { askService } from "./service.js";
import { currentLanguage, t } from "./texts.js";
import { Times } from "./times.js";
import { forgetRow, showTray } from "./tray.js";

const MAX_CASES = 200;
const MODES = ["look", "models", "times"];

class Page {
  cases = [];
  selected = null;
  mode = "look";
  models = [];
  settings = { feedback: false, embedders: [], max_image_bytes: Infinity };
  queue = new Queue();
  /** Grows when all images go: what was on its way for them is not taken any more. */
  sitting = 0;
  #chartFailed = false;
  #modesShown = "";
  #modelsShown = "";
  #told = new Map();

  async start() {
    await readPreferences(() => this.translate());
    this.look = new Look(byId("look"));
    this.times = new Times(byId("times"));
    this.answer = new AnswerPane(byId("answer"), this);
    listenForImages(this);
    byId("capture").hidden = !hasCamera();
    byId("clear").addEventListener("click", () => {
      this.clear();
      byId("choose").focus();
    });
    for (const id of ["model", "tta"]) byId(id).addEventListener("change", () => this.askAgain());
    byId("credential").addEventListener("change", () => this.useCredential());
    this.look.addEventListener("explain", () => this.show());
    this.queue.addEventListener("change", () => this.show());
    setInterval(() => this.queue.busyUntil > Date.now() && this.show(), 500);
    this.translate();
    // As a record launched it: nothing of that is loaded elsewhere.
    if (location.pathname === new URL("smart", document.baseURI).pathname) {
      import("../smart/chart.js").then(({ openChart }) => openChart(this)).catch(() => this.failChart());
    }
    this.readService();
  }

  /* Its own scripts or texts did not come. What the launch left in this tab is good for nothing then. */
  failChart() {
    sessionStorage.clear();
    this.#chartFailed = true;
    this.show();
  }

  /* As soon as it is known who that is: a patient has to leave the page without a key, too. */
  listen(origins) {
    this.embedder ??= new Embedder(origins, {
      open: (image, known) => this.addCase(new Case(image, known)),
      clear: () => {
        this.clear();
        this.chart?.leave();
      },
    });
  }

  /* Its models and settings. */
  readService() {
    const takeSettings = (settings) => {
      byId("access").hidden = !settings.authentication;
      this.settings = settings;
      this.listen(settings.embedders);
    };
    const takeModels = (models) => {
      this.models = models;
      this.translate();
    };
    this.service = askService(this.queue, { takeSettings, takeModels });
  }

  /* Whatever was refused for want of another one is asked again. */
  useCredential() {
    setCredential(byId("credential").value);
    for (const job of [this.service, ...this.cases.flatMap((one) => one.jobs)]) {
      if (job.problem?.status === 401 || job.problem?.status === 403) this.queue.repeat(job);
    }
  }

  translate() {
    showIntake(this);
    this.chart?.show();
    this.look.translate();
    const chosen = byId("model").value;
    fill(
      byId("model"),
      h("option", { value: "" }, t("model.the-default")),
      this.models.map(({ name, version, title }) =>
        h("option", { value: `${name}@${version}`, selected: chosen === `${name}@${version}` }, title),
      ),
    );
    this.show();
  }

  addFiles(files) {
    for (const file of files) this.addCase(new Case(file, { name: file.name }));
  }

  async addExample({ name, url }) {
    const { sitting } = this;
    try {
      const file = await (await fetch(url)).blob();
      if (this.sitting === sitting) this.addCase(new Case(file, { name, isDrawn: true }));
    } catch {
      this.say(t("examples.unreachable"));
    }
  }

  openCamera = () => {
    const { sitting } = this;
    openCamera((file) => this.sitting === sitting && this.addFiles([file]));
  };

  addCase(added) {
    if (this.cases.length >= MAX_CASES) {
      this.say(t("too-many", { max: MAX_CASES }));
      added.close(this.queue);
      this.embedder?.tell("problem", {
        id: added.messageId,
        problem: { status: 0, type: "too-many", title: "", detail: t("too-many", { max: MAX_CASES }) },
      });
      return;
    }
    this.cases.push(added);
    this.mainJob(added);
    // What the page around this one opens is what its reader wants to see.
    if (this.selected === null || added.messageId !== null) this.select(added);
    else this.show();
  }

  question() {
    return { model: byId("model").value, method: DEFAULT_METHOD, tta: byId("tta").checked };
  }

  /* A file that the service would not even read to its end is not sent. */
  mainJob(shownCase) {
    if (shownCase.file.size > this.settings.max_image_bytes) {
      shownCase.refusal ??= Object.assign(new Job(), { state: "failed", problem: new Problem("too-large") });
      return shownCase.refusal;
    }
    return shownCase.ask(this.queue, this.question());
  }

  askAgain() {
    for (const one of this.cases) this.mainJob(one);
    this.show();
  }

  select(shownCase) {
    this.selected = shownCase;
    this.show();
  }

  /* By the reader, whose focus was on a button that is gone then. */
  remove(shownCase) {
    this.forget(shownCase);
    (byId("cases").querySelector("[aria-current]") ?? byId("choose")).focus();
  }

  forget(shownCase) {
    const place = this.cases.indexOf(shownCase);
    this.cases.splice(place, 1);
    shownCase.close(this.queue);
    forgetRow(shownCase);
    this.#told.delete(shownCase);
    if (this.selected === shownCase) this.selected = this.cases[Math.min(place, this.cases.length - 1)] ?? null;
    this.show();
  }

  clear() {
    this.sitting += 1;
    for (const one of [...this.cases]) this.forget(one);
    for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
    fill(byId("copy"));
    this.say("");
  }

  say(text) {
    byId("status").textContent = text;
  }

  /* Until a job is asked again; 0 for one that does not wait for that. */
  secondsOf(job) {
    return job.state === "busy" ? this.secondsLeft : 0;
  }

  get secondsLeft() {
    return Math.max(1, Math.ceil((this.queue.busyUntil - Date.now()) / 1000));
  }

  show() {
    const entries = this.cases.map((shownCase) => ({ shownCase, job: this.mainJob(shownCase) }));
    showTray(entries, this.selected, this, this.secondsLeft);
    this.showTroubles();
    this.showModes();
    this.showDesk();
    this.answer.show(this.selected);
    for (const { shownCase, job } of entries) this.tell(shownCase, job);
  }

  /* Of the page itself, not of an image. */
  showTroubles() {
    const { problem } = this.service ?? {};
    update(
      byId("troubles"),
      this.#chartFailed && h("p", { class: "flag" }, t("chart.not-loaded")),
      problem && problemNote(problem, "service.failed"),
    );
  }

  showModes() {
    if (this.mode === "times" && this.cases.length < 2) this.mode = "look";
    const select = (mode) => {
      this.mode = mode;
      this.show();
    };
    byId("modes").hidden = this.selected === null;
    const key = [this.mode, this.cases.length < 2, currentLanguage()].join();
    if (key === this.#modesShown) return;
    this.#modesShown = key;
    fill(
      byId("modes"),
      MODES.map((mode) =>
        h(
          "button",
          {
            type: "button",
            "data-key": mode,
            "aria-pressed": String(mode === this.mode),
            disabled: mode === "times" && this.cases.length < 2,
            on: { click: () => select(mode) },
          },
          t(`mode.${mode}`),
        ),
      ),
    );
  }

  showDesk() {
    byId("welcome").hidden = this.selected !== null;
    for (const mode of MODES) byId(mode).hidden = this.selected === null || mode !== this.mode;
    if (this.selected === null) {
      this.look.clear();
      this.times.clear();
      fill(byId("models"));
      this.#modelsShown = "";
      return;
    }
    if (this.mode === "look") {
      this.look.show(this.selected, this.findHeatmap());
    } else if (this.mode === "models") {
      const asked = this.models.map((model) => ({ model, job: this.selected.ask(this.queue, questionOf(model)) }));
      const states = asked.map(({ job }) => [job.state, job.attempts, this.secondsOf(job), job.answer?.request_id]);
      const key = [this.selected.number, this.selected.canBeShown, currentLanguage(), ...states].join();
      if (key === this.#modelsShown) return;
      this.#modelsShown = key;
      const repeat = (job) => this.queue.repeat(job);
      showModels(byId("models"), this.selected, asked, { repeat, secondsLeft: this.secondsLeft });
    } else {
      this.times.show(this.cases, (one) => this.mainJob(one), this.secondsLeft);
    }
  }

  /* The heatmap that the reader chose, if it is one of the answer that is shown. */
  findHeatmap() {
    const main = this.mainJob(this.selected);
    const hasAttention = this.models.find((m) => isModel(main.answer, m))?.has_attention ?? true;
    const found = (heatmap, state = "", again = null) => ({ heatmap, state, again, hasAttention });
    if (main.answer === null) return found(null);
    if (isRejected(main.answer)) return found(null, "heat.rejected");
    const { method, explained } = this.look.explain;
    if (method === DEFAULT_METHOD && explained === "") return found(main.answer.heatmap);
    const { name, version } = main.answer.model;
    const job = this.selected.ask(this.queue, { model: `${name}@${version}`, method, explained });
    if (job.state === "failed") return found(null, "heat.failed", () => this.queue.repeat(job));
    if (job.answer === null) return found(null, "heat.waiting");
    if (job.answer.model.digest !== main.answer.model.digest || isRejected(job.answer)) {
      return found(null, "heat.other-model");
    }
    return found(job.answer.heatmap);
  }

  /* Once per outcome: to a reader who does not see the page, and to the page around it. */
  tell(shownCase, job) {
    const key = `${job.state} ${job.answer?.request_id ?? ""}`;
    if (this.#told.get(shownCase) === key) return;
    this.#told.set(shownCase, key);
    const { number, messageId } = shownCase;
    if (job.state === "answered") {
      this.say(t("said", { number, text: decision(job.answer).querySelector("h2").textContent }));
      if (messageId !== null) this.embedder.tell("answer", { id: messageId, answer: job.answer });
    } else if (job.state === "failed") {
      const { status, kind, title, detail } = job.problem;
      this.say(t("said", { number, text: title || t(`problem.${kind}`) }));
      if (messageId !== null) {
        this.embedder.tell("problem", { id: messageId, problem: { status, type: kind, title, detail } });
      }
    } else if (job.state === "busy" || job.state === "offline") {
      this.say(t("said", { number, text: t(`state.${job.state}`, { seconds: this.secondsLeft }) }));
    }
  }
}

function isModel(answer, model) {
  return answer !== null && answer.model.name === model.name && answer.model.version === model.version;
}

await new Page().start();
