// An authorization server for SMART App Launch: oauth2-mock-server, made to insist on what the standard asks of
// a public client. CONTEXTS is a JSON file, read at each request: {client, redirect, audiences,
// launches: {handle: {patient, encounter}}, standalone: {patient}}; a context with `denied` is refused for that reason.
// Systems of the hospital itself get tokens for client_credentials. Prints its address.
import { readFileSync } from 'node:fs';
import { OAuth2Server } from 'oauth2-mock-server';

const granted = new Map();

function contextOf({ launch, scope, ...query }) {
  const known = JSON.parse(readFileSync(process.env.CONTEXTS));
  const isGenuine =
    query.response_type === 'code' &&
    query.client_id === known.client &&
    known.audiences.includes(query.aud) &&
    query.redirect_uri === known.redirect &&
    query.code_challenge_method === 'S256' &&
    /^[A-Za-z0-9_-]{43}$/.test(query.code_challenge ?? '') &&
    (query.state ?? '').length >= 16;
  const scopes = scope.split(' ');
  if (!isGenuine) return undefined;
  if (launch !== undefined) return scopes.includes('launch') ? known.launches[launch] : undefined;
  return scopes.includes('launch/patient') ? known.standalone : undefined;
}

const server = new OAuth2Server();
await server.issuer.keys.generate('RS256');
server.service.on('beforeAuthorizeRedirect', ({ url }, { query }) => {
  const context = contextOf(query);
  if (context === undefined || context.denied) {
    url.searchParams.delete('code');
    url.searchParams.set('error', 'access_denied');
    url.searchParams.set('error_description', context?.denied ?? 'no such launch');
  } else {
    granted.set(url.searchParams.get('code'), { ...query, context });
  }
});
server.service.on('beforeResponse', (response, { body, headers }) => {
  if (body.grant_type === 'client_credentials') return;
  const grant = granted.get(body.code);
  granted.delete(body.code);
  const isGenuine =
    grant !== undefined &&
    body.grant_type === 'authorization_code' &&
    body.client_id === grant.client_id &&
    body.redirect_uri === grant.redirect_uri &&
    body.code_verifier !== undefined &&
    headers.authorization === undefined;
  if (isGenuine) {
    const { access_token, token_type, expires_in } = response.body;
    response.body = { access_token, token_type, expires_in, scope: grant.scope, ...grant.context };
  } else {
    response.statusCode = 400;
    response.body = { error: 'invalid_grant' };
  }
});
await server.start(0, '127.0.0.1');
console.log(server.issuer.url);
