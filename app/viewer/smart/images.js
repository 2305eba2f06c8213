/* Images in a patient's chart: which there are, and the bytes of one. Knows nothing of the page. */

import { Refusal } from "./settings.js";
import { isAbout, listOf, resource, resourcesOf, textOf } from "./record.js";

const MAX_IMAGES = 60;
const MAX_PER_SEARCH = 50;
const MAX_ENDPOINTS = 50;
const WITHDRAWN = ["entered-in-error", "not-done", "aborted", "cancelled", "superseded"];
const MAX_IMAGE_BYTES = 32 * 1024 * 1024;
const IMAGE_TYPES = ["image/jpeg", "image/png"];
const OWN_ANSWER = "urn:dermhybrid:answer";
const UID = /^[0-9][0-9.]{0,63}$/;
const SIGNATURES = { "image/jpeg": [0xff, 0xd8, 0xff], "image/png": [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a] };

/**
 * One image.
 * @typedef {{key: string, title: string, date: string, kind: string, attachment?: Object, rendered?: string,
 *   study?: string, problem?: Refusal}} ChartImage `kind`: of the resource; `problem`: why it cannot be
 *   fetched; `study`: `ImagingStudy/...` that it is from
 */

/** What a reader calls an image. */
export function nameOf({ title, date, key }) {
  return [title || key, date.slice(0, 10)].filter(Boolean).join(", ");
}

/**
 * All that a chart has, the newest first.
 * @param {import("./record.js").Record} record
 * @param {string} patient id
 * @returns {Promise<{images: ChartImage[], more: boolean, problems: Array<{kind: string, problem: Refusal}>}>}
 *   `more`: whether there are further ones that are not listed
 */
export async function findImages(record, patient) {
  const searches = { Media: "created", DocumentReference: "date", ImagingStudy: "started" };
  const images = [];
  const problems = [];
  let more = false;
  const look = async ([kind, date]) => {
    try {
      const query = new URLSearchParams({ patient, _count: MAX_PER_SEARCH, _sort: `-${date}` });
      const bundle = await record.read(`${kind}?${query}`);
      if (bundle.resourceType !== "Bundle") throw new Refusal("unreadable");
      more ||= listOf(bundle.link).some((link) => link?.relation === "next");
      const found = resourcesOf(bundle, kind).slice(0, MAX_PER_SEARCH);
      const own = found.filter((one) => isAbout(one, patient, record.base));
      if (own.length < found.length) problems.push({ kind, problem: new Refusal("other-subject", { kind }) });
      const valid = own.filter(({ status, docStatus }) => ![status, docStatus].some((one) => WITHDRAWN.includes(one)));
      if (valid.length < own.length) problems.push({ kind, problem: new Refusal("withdrawn", { kind }) });
      images.push(...(await FINDERS[kind](valid, record)));
    } catch (error) {
      problems.push({ kind, problem: error instanceof Refusal ? error : new Refusal("unreadable") });
    }
  };
  await Promise.all(Object.entries(searches).map(look));
  images.sort((a, b) => (a.date < b.date ? 1 : a.date > b.date ? -1 : 0));
  return { images: images.slice(0, MAX_IMAGES), more: more || images.length > MAX_IMAGES, problems };
}

const FINDERS = { Media: ofMedia, DocumentReference: ofDocuments, ImagingStudy: ofStudies };

function ofMedia(found) {
  return found
    .filter(({ content }) => IMAGE_TYPES.includes(content?.contentType))
    // Heatmaps that this service has made of images.
    .filter(({ identifier }) => !listOf(identifier).some((one) => one?.system === OWN_ANSWER))
    .map((media) => ({
      key: `Media/${media.id}`,
      kind: "Media",
      title: textOf(media.content.title) || textOf(media.bodySite?.text),
      date: textOf(media.createdDateTime ?? media.createdPeriod?.start ?? media.issued, 30),
      attachment: media.content,
    }));
}

function ofDocuments(found) {
  return found.flatMap((document) =>
    listOf(document.content)
      .map((content) => content?.attachment)
      .filter((attachment) => IMAGE_TYPES.includes(attachment?.contentType))
      .map((attachment, place) => ({
        key: `DocumentReference/${document.id}#${place}`,
        kind: "DocumentReference",
        title: textOf(attachment.title) || textOf(document.description) || textOf(document.type?.text),
        date: textOf(attachment.creation ?? document.date, 30),
        attachment,
      })),
  );
}

async function ofStudies(found, record) {
  const addresses = new Map();
  const images = [];
  for (const study of found) {
    const address = await wadoAddress(study, record, addresses);
    const uid = listOf(study.identifier)
      .map((one) => textOf(one?.value).replace(/^urn:oid:/, ""))
      .find((value) => UID.test(value));
    for (const instance of instancesOf(study)) {
      const path = [uid, instance.series, instance.uid].every((part) => UID.test(part))
        ? `studies/${uid}/series/${instance.series}/instances/${instance.uid}/rendered`
        : null;
      const isUsable = typeof address === "string" && path !== null;
      images.push({
        key: `ImagingStudy/${study.id}#${instance.place}`,
        kind: "ImagingStudy",
        study: `ImagingStudy/${study.id}`,
        title: instance.title || textOf(study.description),
        date: textOf(study.started, 30),
        ...(isUsable ? { rendered: `${address}/${path}` } : { problem: path === null ? new Refusal("no-instance") : address }),
      });
    }
  }
  return images;
}

/* Of a study without any there is still one line, so that nobody takes it for absent. */
function instancesOf(study) {
  const instances = listOf(study.series)
    .slice(0, MAX_IMAGES)
    .flatMap((series) =>
      listOf(series?.instance)
        .slice(0, MAX_IMAGES)
        .map((instance) => ({
          series: textOf(series.uid).replace(/^urn:oid:/, ""),
          uid: textOf(instance?.uid).replace(/^urn:oid:/, ""),
          title: textOf(instance?.title) || textOf(series.description),
        })),
    )
    .slice(0, MAX_IMAGES)
    .map((instance, place) => ({ ...instance, place }));
  return instances.length > 0 ? instances : [{ series: "", uid: "", title: "", place: 0 }];
}

/* Base of the study's WADO-RS service, or why there is none that may be asked. */
async function wadoAddress(study, record, known) {
  const references = [...listOf(study.endpoint), ...listOf(study.series).flatMap((series) => listOf(series?.endpoint))];
  let refusal = new Refusal("no-endpoint");
  for (const reference of references.map((one) => textOf(one?.reference)).slice(0, MAX_ENDPOINTS)) {
    // What a study contains has a name in that study alone.
    const key = reference.startsWith("#") ? `${study.id}${reference}` : reference;
    if (!known.has(key)) {
      if (known.size >= MAX_ENDPOINTS) return new Refusal("too-many-endpoints", { max: MAX_ENDPOINTS });
      known.set(key, await readEndpoint(reference, study, record));
    }
    const address = known.get(key);
    if (typeof address === "string") return address;
    if (refusal.kind === "no-endpoint") refusal = address;
  }
  return refusal;
}

async function readEndpoint(reference, study, record) {
  try {
    const endpoint = reference.startsWith("#")
      ? listOf(study.contained).find((one) => `#${one?.id}` === reference)
      : await record.read(reference);
    const address = textOf(endpoint?.address, 2000).replace(/\/+$/, "");
    if (endpoint?.resourceType !== "Endpoint" || endpoint.connectionType?.code !== "dicom-wado-rs") {
      return new Refusal("no-endpoint");
    }
    if (!URL.canParse(address) || new URL(address).origin !== record.origin) {
      return new Refusal("elsewhere", { origin: URL.canParse(address) ? new URL(address).origin : "?" });
    }
    return address;
  } catch (error) {
    return error instanceof Refusal ? error : new Refusal("no-endpoint");
  }
}

/**
 * The bytes of one image.
 * @param {ChartImage} image
 * @param {import("./record.js").Record} record
 * @param {number} maxBytes that the service takes
 * @returns {Promise<Blob>} a JPEG or PNG by its first bytes, whatever the record calls it
 * @throws {Refusal}
 */
export async function fetchImage(image, record, maxBytes) {
  const limit = Math.min(maxBytes, MAX_IMAGE_BYTES);
  if (image.problem) throw image.problem;
  if (image.rendered) return asPicture((await record.fetchRendered(image.rendered, limit)).bytes);
  const { data, url, size } = image.attachment;
  if (Number(size) > limit) throw tooLarge(limit);
  if (typeof data === "string") return asPicture(decode(data, limit));
  if (typeof url !== "string") throw new Refusal("no-content");
  // In a Binary the bytes are in base64, which takes a third more.
  const got = await record.fetchBytes(url, Math.ceil(limit * 1.4) + 4096);
  if (!/\bjson\b/.test(got.type)) return asPicture(got.bytes, limit);
  const binary = resource(got);
  if (binary.resourceType !== "Binary" || typeof binary.data !== "string") throw new Refusal("no-content");
  return asPicture(decode(binary.data, limit));
}

function tooLarge(limit) {
  return new Refusal("too-large", { megabytes: Math.floor(limit / 1e6) });
}

function decode(base64, limit) {
  if (base64.length * 0.74 > limit) throw tooLarge(limit);
  try {
    return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  } catch {
    throw new Refusal("not-image");
  }
}

function asPicture(bytes, limit = Infinity) {
  if (bytes.length > limit) throw tooLarge(limit);
  const type = IMAGE_TYPES.find((name) => SIGNATURES[name].every((byte, place) => bytes[place] === byte));
  if (type === undefined) throw new Refusal("not-image");
  return new Blob([bytes], { type });
}
