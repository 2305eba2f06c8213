/* Write an answer into the record: what is to be written, the clinician's consent, once. */

import { actionOf, decisionBadge, isRejected } from "../scripts/answer.js";
import { ask } from "../scripts/api.js";
import { DEFAULT_METHOD } from "../scripts/cases.js";
import { fill, h } from "../scripts/dom.js";
import { t, word } from "../scripts/texts.js";
import { nameOf } from "./images.js";
import { refusalNote } from "./notes.js";
import { isAbout, listOf, resourcesOf } from "./record.js";
import { Refusal } from "./settings.js";

const TIMEOUT_MILLISECONDS = 150_000;
const MAX_REQUEST_ID_LENGTH = 64;
const ANSWER = "urn:dermhybrid:answer";
const LOCATION = /(?:^|\/)(DiagnosticReport\/[A-Za-z0-9\-.]{1,64})(?:\/_history\/|$)/;

/** Writes into one chart. */
export class ReportWriter {
  #states = new WeakMap();
  #dialog = h("dialog", { id: "write" });

  /**
   * @param {import("./record.js").Record} record
   * @param {{patient: string, encounter: string | null}} context of the launch
   * @param {{showPatient: () => Node, say: (text: string) => void}} page `showPatient`: who it is, in words; `say`: to
   *   readers who do not see it
   */
  constructor(record, context, { showPatient, say }) {
    this.record = record;
    this.context = context;
    this.showPatient = showPatient;
    this.say = say;
    document.body.append(this.#dialog);
  }

  /** Take away what it has put on the page. */
  close() {
    this.#dialog.remove();
  }

  /**
   * The part of an answer that offers to write it, or says what became of that.
   * @param {import("../scripts/cases.js").Case} shownCase
   * @param {import("../scripts/queue.js").Job} job that was answered
   * @param {import("./images.js").ChartImage | undefined} image of the chart, if it is one
   */
  form(shownCase, job, image) {
    if (!this.#states.has(job)) this.#states.set(job, { status: "idle", bundle: null, mayBeThere: false });
    const state = this.#states.get(job);
    const root = h("section", { class: "block chart-report" });
    state.show = () => {
      const held = root.contains(document.activeElement);
      const title = h("h3", { tabindex: "-1" }, t("report.title"));
      fill(root, title, this.#content(state, { shownCase, job, image }));
      // The button that had the focus is gone.
      if (held && !root.contains(document.activeElement)) title.focus({ preventScroll: true });
    };
    state.show();
    return root;
  }

  #content(state, asked) {
    const offer = (key) =>
      h("button", { type: "button", "data-key": "write", on: { click: () => this.#confirm(state, asked) } }, t(key));
    if (asked.shownCase.isDrawn) return h("p", { class: "fine" }, t("report.drawn"));
    if (state.status === "sending") return h("p", { class: "state" }, t("report.sending"));
    if (state.status === "stored") {
      return h("p", { class: "stored" }, t("report.stored"), " ", h("code", {}, state.reference));
    }
    return [
      state.status === "failed"
        ? h("div", { role: "alert" }, refusalNote(state.mayBeThere ? "report.unknown" : "report.failed", state.problem))
        : h("p", { class: "fine" }, t("report.explained")),
      offer(state.status === "failed" ? "report.again" : "report.offer"),
    ];
  }

  #confirm(state, asked) {
    const dialog = this.#dialog;
    const { answer } = asked.job;
    const image = asked.image ? t("report.image.chart", { name: nameOf(asked.image) }) : t("report.image.other");
    const agreed = h("input", { type: "checkbox", required: true });
    const row = (key, ...content) => [h("dt", {}, t(key)), h("dd", {}, content)];
    fill(
      dialog,
      h("h2", { id: "write-title" }, t("report.confirm")),
      h("p", { class: "notice" }, t("notice")),
      h(
        "form",
        {
          on: {
            submit: (event) => {
              event.preventDefault();
              dialog.close();
              this.#write(state, asked);
            },
          },
        },
        h(
          "dl",
          { class: "facts" },
          row("chart.patient", this.showPatient()),
          row("report.image", h("bdi", {}, image)),
          row("answer.title", decisionBadge(answer), isRejected(answer) ? null : [" ", word("class", answer.predicted_class.label)]),
          row("origin.request", answer.request_id),
        ),
        h("p", {}, t("report.what")),
        h("label", { class: "check" }, agreed, " ", t("report.agree")),
        h(
          "div",
          { class: "dialog-buttons" },
          h("button", { type: "submit", class: "primary" }, t("report.write")),
          h("button", { type: "button", on: { click: () => dialog.close() } }, t("report.cancel")),
        ),
      ),
    );
    dialog.setAttribute("aria-labelledby", "write-title");
    dialog.showModal();
  }

  async #write(state, asked) {
    if (state.status === "sending" || state.status === "stored") return;
    state.status = "sending";
    state.show();
    this.say(t("report.sending"));
    try {
      state.bundle ??= await this.#makeBundle(asked);
      // An attempt whose answer was lost may have arrived.
      const earlier = state.mayBeThere ? await this.#find(state.bundle) : null;
      state.reference = earlier ?? (await this.#send(state));
      state.status = "stored";
      this.say(`${t("report.stored")} ${state.reference}`);
    } catch (error) {
      state.problem = error;
      state.status = "failed";
    }
    state.show();
  }

  async #send(state) {
    try {
      return storedReport(await this.record.transact(state.bundle), state.bundle);
    } catch (error) {
      state.mayBeThere ||= !isRefused(error);
      throw error;
    }
  }

  /* The service's own Bundle of the same image and model; the token has no part in it. */
  async #makeBundle({ shownCase, job, image }) {
    const { answer } = job;
    const { patient, encounter } = this.context;
    const query = new URLSearchParams({
      format: "fhir",
      model: `${answer.model.name}@${answer.model.version}`,
      heatmap_method: DEFAULT_METHOD,
      overlay_format: "jpeg",
      tta: String(answer.uncertainty !== null),
    });
    const bundle = await ask(`predict?${query}`, {
      method: "POST",
      body: shownCase.file,
      headers: {
        "Content-Type": "application/octet-stream",
        "X-Request-ID": `${answer.request_id.slice(0, MAX_REQUEST_ID_LENGTH - 7)}.report`,
        "X-FHIR-Subject": `Patient/${patient}`,
        ...(encounter && { "X-FHIR-Encounter": `Encounter/${encounter}` }),
        ...(image?.study && { "X-FHIR-Imaging-Study": image.study }),
      },
      signal: AbortSignal.timeout(TIMEOUT_MILLISECONDS),
    }).catch((problem) => {
      throw new Refusal("service", { status: problem.status || problem.kind });
    });
    if (!says(bundle, answer, patient)) throw new Refusal("other-answer");
    return bundle;
  }

  async #find(bundle) {
    const identifier = listOf(parts(bundle, "DiagnosticReport")[0].identifier).find((one) => one.system === ANSWER);
    const { patient } = this.context;
    const query = new URLSearchParams({ patient, identifier: `${ANSWER}|${identifier.value}` });
    const found = resourcesOf(await this.record.read(`DiagnosticReport?${query}`), "DiagnosticReport").find(
      (one) => has(one.identifier, ANSWER, identifier.value, "value") && isAbout(one, patient, this.record.base),
    );
    return found === undefined ? null : `DiagnosticReport/${found.id}`;
  }
}

/* Whether a server said that it has not taken a Bundle: all other failures leave it open. */
function isRefused({ kind, values }) {
  return ["expired", "forbidden", "gone"].includes(kind) || (kind === "status" && values.status >= 400 && values.status < 500);
}

function parts(bundle, kind) {
  return listOf(bundle?.entry)
    .map((entry) => entry?.resource)
    .filter((one) => one?.resourceType === kind);
}

function has(list, system, code, value = "code") {
  return listOf(list).some((one) => one?.system === system && one[value] === code);
}

/* Whether a Bundle has what the page shows: models are exchanged while a service runs. */
function says(bundle, answer, patient) {
  const [report, ...others] = parts(bundle, "DiagnosticReport");
  const [device] = parts(bundle, "Device");
  const [predicted] = parts(bundle, "Observation").filter(({ code }) =>
    has(code?.coding, "urn:dermhybrid:code", "predicted-class"),
  );
  return (
    bundle?.resourceType === "Bundle" &&
    bundle.type === "transaction" &&
    report?.status === "preliminary" &&
    others.length === 0 &&
    report.subject?.reference === `Patient/${patient}` &&
    has(report.meta?.tag, "urn:dermhybrid:decision", actionOf(answer)) &&
    has(device?.identifier, "urn:dermhybrid:model-sha256", answer.model.digest, "value") &&
    predicted !== undefined &&
    (isRejected(answer)
      ? predicted.valueCodeableConcept === undefined
      : has(predicted.valueCodeableConcept?.coding, "urn:dermhybrid:class", answer.predicted_class.label))
  );
}

/* What the server called the report; only an answer that says so of every resource is one. */
function storedReport(answer, bundle) {
  const responses = listOf(answer.entry).map((entry) => entry?.response);
  const place = bundle.entry.findIndex(({ resource }) => resource.resourceType === "DiagnosticReport");
  const isWhole =
    answer.resourceType === "Bundle" &&
    responses.length === bundle.entry.length &&
    responses.every((response) => String(response?.status).startsWith("2"));
  const location = isWhole ? LOCATION.exec(String(responses[place].location)) : null;
  if (location === null) throw new Refusal("not-stored");
  return location[1];
}
