/* Whose chart it is, in the words of the record. */

import { textOf, listOf } from "./record.js";
import { Refusal } from "./settings.js";

const SEXES = ["male", "female", "other", "unknown"];

/**
 * What the banner shows.
 * @param {import("./record.js").Record} record
 * @param {string} id
 * @returns {Promise<{name: string, birthDate: string, sex: string, identifier: string}>} `sex`: a code of
 *   FHIR's AdministrativeGender, or ""; each is "" where the record has none
 */
export async function readPatient(record, id) {
  const patient = await record.read(`Patient/${id}`);
  if (patient.resourceType !== "Patient" || patient.id !== id) throw new Refusal("other-patient");
  return {
    name: nameOf(listOf(patient.name)),
    birthDate: textOf(patient.birthDate, 10),
    sex: SEXES.includes(patient.gender) ? patient.gender : "",
    identifier: identifierOf(listOf(patient.identifier)),
  };
}

function nameOf(names) {
  const chosen = ["official", "usual"].map((use) => names.find((name) => name?.use === use)).find(Boolean) ?? names[0];
  const parts = [...listOf(chosen?.given), chosen?.family].map((part) => textOf(part)).filter(Boolean);
  return textOf(textOf(chosen?.text) || parts.join(" "));
}

/* The medical record number where one is marked as such, else the first one. */
function identifierOf(identifiers) {
  const isRecordNumber = (one) => listOf(one?.type?.coding).some((coding) => coding?.code === "MR");
  const chosen = identifiers.find(isRecordNumber) ?? identifiers[0];
  return textOf(chosen?.value, 64);
}
