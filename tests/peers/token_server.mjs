// An OAuth 2 authorization server for SMART Backend Services: oauth2-mock-server, made to check the
// client's assertion. CLIENT_KEY is the client's public key (PEM). Prints its address.
import { createPublicKey, verify } from 'node:crypto';
import { OAuth2Server } from 'oauth2-mock-server';

const key = createPublicKey(process.env.CLIENT_KEY);
const seen = new Set();

function isGenuine({ client_assertion_type: type, client_assertion: assertion, grant_type: grant }) {
  const [header, payload, signature] = assertion.split('.');
  const { alg, kid } = JSON.parse(Buffer.from(header, 'base64url'));
  const claims = JSON.parse(Buffer.from(payload, 'base64url'));
  const now = Date.now() / 1000;
  const genuine =
    grant === 'client_credentials' &&
    type === 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer' &&
    alg === (key.asymmetricKeyType === 'ec' ? 'ES384' : 'RS384') &&
    kid === 'key-1' &&
    claims.iss === 'dermhybrid' &&
    claims.sub === 'dermhybrid' &&
    claims.aud === `${server.issuer.url}/token` &&
    claims.exp > now &&
    claims.exp <= now + 300 &&
    !seen.has(claims.jti) &&
    verify(
      'sha384',
      Buffer.from(`${header}.${payload}`),
      { key, dsaEncoding: 'ieee-p1363' },
      Buffer.from(signature, 'base64url')
    );
  seen.add(claims.jti);
  return genuine;
}

const server = new OAuth2Server();
await server.issuer.keys.generate('RS256');
server.service.on('beforeResponse', (response, request) => {
  if (!isGenuine(request.body)) {
    response.statusCode = 401;
    response.body = { error: 'invalid_client' };
  }
});
await server.start(0, '127.0.0.1');
console.log(server.issuer.url);
