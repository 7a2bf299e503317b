// A certified OpenID provider with one client, and an API that takes its access
// tokens, for oidcprovider_test.go. It says on its standard output, a JSON
// object a line, where it listens, and then each token request it answered,
// tokens in clear: the test searches Lanyard's output for them. It ends when its
// standard input does, and so never outlives the test.
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';

import { errors, Provider } from 'oidc-provider';

const { CLIENT_ID, CLIENT_SECRET, REDIRECT_URI, ACCESS_SECONDS } = process.env;

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const server = createServer();
server.listen(0, '127.0.0.1');
await once(server, 'listening');
const url = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(url, {
  clients: [{
    client_id: CLIENT_ID,
    client_secret: CLIENT_SECRET,
    redirect_uris: [REDIRECT_URI],
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
  }],
  cookies: { keys: [randomBytes(32).toString('hex')] },
  jwks: { keys: [generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' })] },
  features: {
    devInteractions: { enabled: false },
    revocation: { enabled: true, allowedPolicy: (ctx, client, token) => token.clientId === client.clientId },
    introspection: { enabled: true },
  },
  claims: { openid: ['sub'], profile: ['name'], email: ['email'] },
  findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id, name: 'Ada Lovelace', email: 'ada@example.org' }) }),
  issueRefreshToken: (ctx, client) => client.grantTypeAllowed('refresh_token'),
  expiresWithSession: () => false,
  interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  pkce: { required: () => true },
  scopes: ['openid', 'offline_access', 'read'],
  ttl: { AccessToken: Number(ACCESS_SECONDS), IdToken: 3600, RefreshToken: 3600, Grant: 3600, Session: 3600, Interaction: 600 },
  rotateRefreshToken: true,
});

provider.on('server_error', (ctx, err) => { console.error(err); });

provider.use(async (ctx, next) => {
  await next();
  if (ctx.path !== '/token') return;
  const asked = ctx.oidc?.params ?? {};
  say({
    grant_type: asked.grant_type ?? '',
    presented: asked.refresh_token ?? asked.code ?? '',
    status: ctx.status,
    error: ctx.body?.error_description ?? ctx.body?.error ?? '',
    issued: [ctx.body?.access_token, ctx.body?.refresh_token].filter(Boolean),
  });
});

// The page on which the user signs in and consents, both with one button.
async function interaction(req, res) {
  const { prompt, params } = await provider.interactionDetails(req, res);
  if (req.method === 'GET') {
    res.setHeader('Content-Type', 'text/html; charset=utf-8');
    res.end(`<!doctype html><html lang="en"><title>Certified provider</title><link rel="icon" href="data:,">
<h1>Let the app read your things?</h1>
<form method="post"><button id="allow" name="do" value="allow">Sign in and allow</button></form>`);
    return;
  }
  const accountId = 'ada';
  const grant = new provider.Grant({ accountId, clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  const result = { login: { accountId }, consent: { grantId: await grant.save() } };
  await provider.interactionFinished(req, res, result, { mergeWithLastSubmission: prompt.name !== 'login' });
}

// The API: 200 for an access token that is good now, else 401.
async function api(req, res) {
  const [scheme, text] = (req.headers.authorization ?? '').split(' ');
  const token = scheme === 'Bearer' && text ? await provider.AccessToken.find(text) : undefined;
  res.setHeader('Content-Type', 'application/json');
  if (!token) {
    res.statusCode = 401;
    res.setHeader('WWW-Authenticate', 'Bearer error="invalid_token"');
    res.end('{"message":"Bad credentials"}');
    return;
  }
  res.end(JSON.stringify({ account: token.accountId, scope: token.scope, path: req.url }));
}

const callback = provider.callback();
server.on('request', (req, res) => {
  const failed = (err) => {
    console.error(err);
    res.statusCode = err instanceof errors.OIDCProviderError ? err.statusCode : 500;
    res.end();
  };
  if (req.url.startsWith('/api/')) api(req, res).catch(failed);
  else if (req.url.startsWith('/interaction/')) interaction(req, res).catch(failed);
  else callback(req, res);
});

process.stdin.on('end', () => process.exit(0)).resume();
say({ url });
