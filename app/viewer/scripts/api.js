/* The service's routes. An answer comes out checked or not at all; knows nothing of the page. */

const BASE = new URL(".", document.baseURI);
const TIMEOUT_MILLISECONDS = 150_000;

// In this page's memory alone: nothing stores it, and it goes to the page's own origin alone.
let credential = "";

/** Send an API key or an access token with all that is asked from now on; "": none. */
export function setCredential(text) {
  credential = text.trim();
}

/** Why there is no answer: the service's problem details (RFC 9457), or what stands in for them. */
export class Problem extends Error {
  /**
   * @param {string} kind last part of the problem's type, or `unreachable`, `unreadable`, `timeout`
   * @param {{status?: number, title?: string, detail?: string, requestId?: string,
   *   retryAfterSeconds?: number}} known
   */
  constructor(kind, known = {}) {
    super(known.detail ?? kind);
    this.kind = kind;
    this.status = known.status ?? 0;
    this.title = known.title ?? "";
    this.detail = known.detail ?? "";
    this.requestId = known.requestId ?? "";
    this.retryAfterSeconds = known.retryAfterSeconds ?? null;
  }
}

/** What the page may know of the service's settings. */
export function readSettings() {
  return ask("viewer/settings.json");
}

/** The loaded models, the default first, then by title. */
export async function listModels() {
  const { models } = await ask("models");
  if (!Array.isArray(models)) throw new Problem("unreadable");
  return models.toSorted((a, b) => b.default - a.default || (a.title < b.title ? -1 : 1));
}

/**
 * The answer for one image. The file's name stays here: only its bytes are sent.
 * @param {Blob} file
 * @param {{model?: string, method?: string, explained?: string, tta?: boolean}} question
 * @param {AbortSignal} signal
 */
export async function predict(file, question, signal) {
  const query = new URLSearchParams({ overlay_format: "jpeg" });
  if (question.model) query.set("model", question.model);
  if (question.method) query.set("heatmap_method", question.method);
  if (question.explained) query.set("heatmap_class", question.explained);
  if (question.tta) query.set("tta", "true");
  const answer = await ask(`predict?${query}`, {
    method: "POST",
    body: file,
    headers: { "Content-Type": "application/octet-stream" },
    signal: AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MILLISECONDS)]),
  });
  if (!isAnswer(answer)) throw new Problem("unreadable");
  return answer;
}

/** Record what a lesion turned out to be; the receipt. */
export function sendFeedback(requestId, diagnosis, source) {
  return ask(`feedback/${encodeURIComponent(requestId)}`, {
    method: "POST",
    body: JSON.stringify({ diagnosis, source }),
    headers: { "Content-Type": "application/json" },
    signal: AbortSignal.timeout(TIMEOUT_MILLISECONDS),
  });
}

/** Whether the service can be reached at all. */
export async function isReachable() {
  try {
    return (await fetch(new URL("health/live", BASE), { cache: "no-store" })).ok;
  } catch {
    return false;
  }
}

export async function ask(path, options = {}) {
  let response;
  let body = null;
  try {
    const headers = { ...options.headers, ...(credential && { Authorization: `Bearer ${credential}` }) };
    response = await fetch(new URL(path, BASE), { cache: "no-store", ...options, headers });
    body = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    // What is no JSON came whole; all else did not come.
    if (!(error instanceof SyntaxError)) throw new Problem(error.name === "TimeoutError" ? "timeout" : "unreachable");
  }
  if (response.ok && body !== null) return body;
  throw readProblem(response, body);
}

function readProblem(response, body) {
  const text = (value) => (typeof value === "string" ? value : "");
  const retryAfter = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  return new Problem(text(body?.type).split(":").at(-1) || "unreadable", {
    status: response.status,
    title: text(body?.title),
    detail: text(body?.detail),
    requestId: text(body?.request_id),
    retryAfterSeconds: retryAfter >= 0 ? retryAfter : null,
  });
}

const isObject = (value) => typeof value === "object" && value !== null;
const isText = (value) => typeof value === "string";
const isShare = (value) => Number.isFinite(value) && value >= 0 && value <= 1;
const isTexts = (value) => Array.isArray(value) && value.every(isText);

/** Whether an answer has all that is shown of it; half an answer would be shown as a whole one. */
export function isAnswer(answer) {
  return (
    isObject(answer) &&
    isText(answer.request_id) &&
    isText(answer.notice) &&
    isModel(answer.model) &&
    isObject(answer.image) &&
    isObject(answer.decision) &&
    isText(answer.decision.action) &&
    isText(answer.decision.sentence) &&
    isTexts(answer.decision.reasons) &&
    isTexts(answer.quality?.issues) &&
    (answer.out_of_distribution === null || isNovelty(answer.out_of_distribution)) &&
    (answer.decision.action === "reject" || isResult(answer))
  );
}

function isModel(model) {
  return (
    isText(model?.name) && Number.isInteger(model.version) && isText(model.digest) && isText(model.runtime)
  );
}

function isResult(answer) {
  return (
    isText(answer.predicted_class?.label) &&
    isText(answer.predicted_class.malignancy) &&
    isShare(answer.confidence) &&
    typeof answer.calibrated === "boolean" &&
    isObject(answer.probabilities) &&
    answer.predicted_class.label in answer.probabilities &&
    Object.values(answer.probabilities).every(isShare) &&
    Array.isArray(answer.prediction_sets) &&
    answer.prediction_sets.every((set) => isShare(set?.coverage) && isTexts(set.labels) && isTexts(set.pooled)) &&
    Array.isArray(answer.operating_points) &&
    answer.operating_points.every(isPoint) &&
    (answer.heatmap === null || isHeatmap(answer.heatmap)) &&
    (answer.uncertainty === null || isUncertainty(answer.uncertainty)) &&
    (answer.ensemble === null || isEnsemble(answer.ensemble))
  );
}

function isNovelty(novelty) {
  return Number.isFinite(novelty?.score) && Number.isFinite(novelty.threshold);
}

function isUncertainty({ views, same_class: sameClass, standard_deviation: spread } = {}) {
  return Number.isInteger(views) && isShare(sameClass) && isObject(spread) && Object.values(spread).every(isShare);
}

function isEnsemble({ disagreement, members } = {}) {
  const isMember = (member) =>
    isModel(member?.model) && isText(member.predicted_class) && isShare(member.confidence);
  return Number.isFinite(disagreement) && Array.isArray(members) && members.every(isMember);
}

function isPoint(point) {
  return (
    isText(point?.target) &&
    isTexts(point.labels) &&
    [point.threshold, point.probability, point.required_sensitivity].every(isShare) &&
    typeof point.positive === "boolean"
  );
}

function isHeatmap(heatmap) {
  const isRow = (row) => Array.isArray(row) && row.length === 7 && row.every(Number.isFinite);
  return (
    isText(heatmap.model) &&
    isText(heatmap.method) &&
    (heatmap.explained_class === null || isText(heatmap.explained_class)) &&
    isText(heatmap.overlay) &&
    /^[A-Za-z0-9+/]+={0,2}$/.test(heatmap.overlay) &&
    /^image\/(png|jpeg)$/.test(heatmap.media_type) &&
    Number.isFinite(heatmap.scale) &&
    isTexts(heatmap.flags) &&
    Array.isArray(heatmap.map) &&
    heatmap.map.length === 7 &&
    heatmap.map.every(isRow)
  );
}
