/* Ask the record that launched the page: bounded in bytes and time, never past its own origin. */

import { Refusal } from "./settings.js";

const MAX_SECONDS = 20;
const MAX_SEARCH_BYTES = 32 * 1024 * 1024; // search answers may have images in base64 in them
const FHIR = "application/fhir+json";
const KINDS = { 401: "expired", 403: "forbidden", 404: "gone", 410: "gone" };

/** A FHIR server, with a token in memory. */
export class Record {
  #authorization;

  /** @param {{serverUrl: string, authorization: string}} context of a launch */
  constructor({ serverUrl, authorization }) {
    this.base = `${serverUrl.replace(/\/+$/, "")}/`;
    this.origin = new URL(this.base).origin;
    this.#authorization = authorization;
  }

  /** Forget the token. */
  close() {
    this.#authorization = null;
  }

  /**
   * A resource, or the Bundle of a search.
   * @param {string} path below the server's base
   */
  async read(path) {
    return resource(await this.#ask(this.#below(path), { headers: { Accept: FHIR } }, MAX_SEARCH_BYTES));
  }

  /** Send a transaction Bundle; what the server made of it. */
  async transact(bundle) {
    const headers = { "Content-Type": FHIR, Accept: FHIR, Prefer: "return=minimal" };
    return resource(
      await this.#ask(this.base.slice(0, -1), { method: "POST", headers, body: JSON.stringify(bundle) }, MAX_SEARCH_BYTES),
    );
  }

  /**
   * The bytes behind an address of the same server.
   * @param {string} address absolute, or relative to the server's base
   * @param {number} maxBytes
   * @returns {Promise<{bytes: Uint8Array, type: string}>}
   */
  fetchBytes(address, maxBytes) {
    const accept = "image/jpeg, image/png;q=0.9, application/fhir+json;q=0.5";
    return this.#ask(this.#below(address), { headers: { Accept: accept } }, maxBytes);
  }

  /** A picture that a WADO-RS service of the same origin has rendered. */
  fetchRendered(address, maxBytes) {
    if (!URL.canParse(address) || new URL(address).origin !== this.origin) throw this.#elsewhere(address);
    return this.#ask(address, { headers: { Accept: "image/jpeg" } }, maxBytes);
  }

  #elsewhere(address) {
    return new Refusal("elsewhere", { origin: URL.canParse(address) ? new URL(address).origin : "?" });
  }

  /* The token goes nowhere but below the address that gave it, rendered pictures of the same origin apart. */
  #below(address) {
    if (!URL.canParse(address, this.base)) throw new Refusal("unreadable");
    const { href } = new URL(address, this.base);
    if (!href.startsWith(this.base)) throw this.#elsewhere(href);
    return href;
  }

  async #ask(address, options, maxBytes) {
    if (this.#authorization === null) throw new Refusal("expired");
    const controller = new AbortController();
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      controller.abort();
    }, 1000 * MAX_SECONDS);
    try {
      const answer = await fetch(address, {
        ...options,
        headers: { ...options.headers, Authorization: this.#authorization },
        redirect: "manual",
        credentials: "omit",
        cache: "no-store",
        referrerPolicy: "no-referrer",
        signal: controller.signal,
      });
      if (answer.type === "opaqueredirect") throw new Refusal("redirect");
      if (!answer.ok) throw new Refusal(KINDS[answer.status] ?? "status", { status: answer.status });
      return { bytes: await readBounded(answer, maxBytes), type: answer.headers.get("Content-Type") ?? "" };
    } catch (error) {
      if (error instanceof Refusal) throw error;
      throw new Refusal(late ? "slow" : "unreachable");
    } finally {
      clearTimeout(timer);
      controller.abort(); // what is left of an answer that was refused
    }
  }
}

async function readBounded(answer, maxBytes) {
  const tooLarge = () => new Refusal("too-large", { megabytes: Math.floor(maxBytes / 1e6) });
  if (Number(answer.headers.get("Content-Length")) > maxBytes) throw tooLarge();
  const chunks = [];
  let size = 0;
  const reader = answer.body?.getReader();
  for (;;) {
    const { done, value } = (await reader?.read()) ?? { done: true };
    if (done) break;
    size += value.length;
    if (size > maxBytes) throw tooLarge();
    chunks.push(value);
  }
  const bytes = new Uint8Array(size);
  let place = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, place);
    place += chunk.length;
  }
  return bytes;
}

/** The FHIR resource in bytes. */
export function resource({ bytes }) {
  try {
    const parsed = JSON.parse(new TextDecoder().decode(bytes));
    if (typeof parsed?.resourceType === "string") return parsed;
  } catch {
    // As whatever else is none.
  }
  throw new Refusal("unreadable");
}

/** A list, whatever a server sent in its place. */
export function listOf(value) {
  return Array.isArray(value) ? value : [];
}

/** A short text, "" where a server sent something else. */
export function textOf(value, maxLength = 200) {
  return typeof value === "string" ? value.slice(0, maxLength) : "";
}

/** Whether a resource says that it is about a patient: a server may ignore what it was asked for. */
export function isAbout(found, patient, base) {
  const reference = textOf(found.subject?.reference, 2000).replace(/\/_history\/[^/]+$/, "");
  return [`Patient/${patient}`, `${base}Patient/${patient}`].includes(reference);
}

/** The resources of one kind in a Bundle. */
export function resourcesOf(bundle, kind) {
  return listOf(bundle?.entry)
    .map((entry) => entry?.resource)
    .filter((found) => found?.resourceType === kind && /^[A-Za-z0-9\-.]{1,64}$/.test(found.id));
}
