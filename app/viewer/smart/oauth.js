/* The OAuth part of a launch: fhirclient, held to what the operator allows (ADR-0025).

   The library takes more from the page's address than it should: call these with an address that has
   no query. Its state is in sessionStorage from `begin` to `finish`, and not a moment longer. */

import { CHART_PAGE, Refusal, checkEndpoints, knownIssuer } from "./settings.js";

const LIBRARY = new URL("vendor/fhirclient/fhir-client.pure.min.js", import.meta.url);
const CURRENT_KEY = "SMART_KEY"; // under which the library keeps the name of its state
const MAX_SECONDS = 30;
const STATE_KEY = /^[0-9a-f]{32}$/;
const FHIR_ID = /^[A-Za-z0-9\-.]{1,64}$/;
const MAX_REASON_LENGTH = 300;

async function library() {
  await import(LIBRARY);
  return window.FHIR.oauth2;
}

function newStateKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function readState(key) {
  const text = STATE_KEY.test(key) ? sessionStorage.getItem(key) : null;
  return text === null ? null : JSON.parse(text);
}

/** Forget a launch that is over, or all there are. */
export function forget(key = "") {
  for (const name of key === "" ? Object.keys(sessionStorage).filter((name) => STATE_KEY.test(name)) : [key]) {
    sessionStorage.removeItem(name);
  }
  sessionStorage.removeItem(CURRENT_KEY);
}

/* The library's promises have no end of their own. */
function inTime(promise) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Refusal("slow")), 1000 * MAX_SECONDS);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

/**
 * Begin a launch.
 * @param {Object} settings as `readLaunchSettings` gives them
 * @param {string} issuer base of the FHIR server
 * @param {string} launch what the record calls this launch; "" for a standalone one
 * @returns {Promise<string>} where the reader is to be sent
 * @throws {Refusal}
 */
export async function begin(settings, issuer, launch) {
  const serverUrl = knownIssuer(settings, issuer);
  forget();
  const stateKey = newStateKey();
  const discovery = { redirect: "error", credentials: "omit", cache: "no-store" };
  try {
    const oauth2 = await library();
    const address = await inTime(
      oauth2.authorize({
        iss: serverUrl,
        launch: launch || undefined,
        clientId: settings.client_id,
        scope: `${launch ? "launch" : "launch/patient"} ${settings.scopes}`,
        redirectUri: CHART_PAGE,
        stateKey,
        pkceMode: "required",
        completeInTarget: true,
        noRedirect: true,
        wellKnownRequestOptions: discovery,
        conformanceRequestOptions: discovery,
      }),
    );
    const { authorizeUri, tokenUri, codeChallenge } = readState(stateKey);
    if (!authorizeUri || !tokenUri) throw new Refusal("discovery", { issuer: serverUrl });
    checkEndpoints(settings, [authorizeUri, tokenUri, address]);
    if (!codeChallenge) throw new Refusal("pkce", { issuer: serverUrl });
    return address;
  } catch (error) {
    forget(stateKey);
    if (error instanceof Refusal) throw error;
    throw new Refusal(/PKCE/.test(error.message) ? "pkce" : "discovery", { issuer: serverUrl });
  }
}

/**
 * Finish a launch: exchange the code for a token, and forget both here.
 * @param {Object} settings as `readLaunchSettings` gives them
 * @param {URLSearchParams} given what the authorization server put into the address
 * @returns {Promise<{serverUrl: string, authorization: string, patient: string, encounter: string | null}>}
 * @throws {Refusal}
 */
export async function finish(settings, given) {
  const stateKey = given.get("state") ?? "";
  const state = readState(stateKey);
  if (state === null) throw new Refusal("no-launch");
  try {
    const reason = given.get("error_description") ?? given.get("error");
    if (reason !== null) throw new Refusal("denied", { reason: reason.slice(0, MAX_REASON_LENGTH) });
    const code = given.get("code");
    if (!code || !state.codeVerifier) throw new Refusal("no-launch");
    knownIssuer(settings, state.serverUrl);
    checkEndpoints(settings, [state.tokenUri]);
    const oauth2 = await library();
    // Also where it comes too late to be waited for.
    const ready = oauth2.ready({ code, stateKey }).finally(() => forget(stateKey));
    return context(await inTime(ready));
  } catch (error) {
    throw error instanceof Refusal ? error : new Refusal("token");
  } finally {
    forget(stateKey);
  }
}

function context(client) {
  const { patient, encounter } = client.state.tokenResponse;
  if (typeof patient !== "string" || !FHIR_ID.test(patient)) throw new Refusal("no-patient");
  return {
    serverUrl: client.state.serverUrl,
    authorization: client.getAuthorizationHeader(),
    patient,
    encounter: typeof encounter === "string" && FHIR_ID.test(encounter) ? encounter : null,
  };
}
