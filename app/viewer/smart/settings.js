/* Who may launch this page, as the service's operator has set it, and what is refused in a launch. */

const SETTINGS = new URL("../../smart/settings.json", import.meta.url);
const MAX_ADDRESS_LENGTH = 2000;

/** Where the authorization server sends the reader back to: the viewer with a chart. */
export const CHART_PAGE = new URL("../../smart", import.meta.url).href;

/** Where a launch begins. */
export const LAUNCH_PAGE = new URL("../../smart/launch", import.meta.url).href;

/** The viewer without a chart. */
export const PLAIN_PAGE = new URL("../../", import.meta.url).href;

/** Why something of a launch or of a record is not done; `kind` names its words in texts/. */
export class Refusal extends Error {
  /**
   * @param {string} kind
   * @param {Object} values for the places of the words
   */
  constructor(kind, values = {}) {
    super(kind);
    this.kind = kind;
    this.values = values;
  }
}

/**
 * What the service says.
 * @returns {Promise<{client_id: string, issuers: string[], authorization_origins: string[], scopes: string}>}
 */
export async function readLaunchSettings() {
  try {
    const answer = await fetch(SETTINGS, { cache: "no-store" });
    if (answer.ok) return await answer.json();
  } catch {
    // As where there is no answer.
  }
  throw new Refusal("settings");
}

/**
 * The FHIR server as the operator has named it.
 * @throws {Refusal} the operator has not
 */
export function knownIssuer(settings, issuer) {
  const known = settings.issuers.find((candidate) => candidate === issuer.replace(/\/+$/, ""));
  if (known === undefined) throw new Refusal("issuer", { issuer: issuer.slice(0, MAX_ADDRESS_LENGTH) });
  return known;
}

/**
 * That a server sends the reader, and the code, nowhere but where the operator allows it.
 * @throws {Refusal} it does
 */
export function checkEndpoints(settings, endpoints) {
  const allowed = [...settings.issuers.map((issuer) => new URL(issuer).origin), ...settings.authorization_origins];
  for (const endpoint of endpoints) {
    const origin = URL.canParse(endpoint) ? new URL(endpoint).origin : String(endpoint);
    if (!allowed.includes(origin)) throw new Refusal("endpoint", { origin: origin.slice(0, MAX_ADDRESS_LENGTH) });
  }
}
