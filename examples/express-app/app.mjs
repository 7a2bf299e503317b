// An app whose users connect accounts through Lanyard, with nothing but Express:
// it connects one, asks for more scopes, takes an API key, and calls the API.
import express from "express";
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";

const { LANYARD_API_KEY: apiKey, LANYARD_CLIENT_KEY: clientKey } = process.env;
const publicURL = process.env.LANYARD_PUBLIC_URL ?? "http://localhost:9081";
const lanyard = process.env.LANYARD_URL ?? "http://localhost:9080";
const appURL = process.env.APP_URL ?? "http://localhost:9083";
const userID = "user_123"; // whoever the app has signed in; this one has no sign-in

// connectLink signs a link, with no request: docs/connect-flow.md.
function connectLink(params) {
  const hmac = (key, message) => createHmac("sha256", key).update(message);
  const expires = Math.floor(Date.now() / 1000) + 15 * 60;
  const query = new URLSearchParams({ ...params, expires }).toString();
  const signature = hmac(hmac(apiKey, "lanyard link v1").digest(), `lanyard-link-v1\n${publicURL}/connect\n${query}`);
  return `${publicURL}/connect?${query}&signature=${signature.digest("base64url")}`;
}

// api calls the management API.
async function api(method, path, body) {
  const res = await fetch(lanyard + path, {
    method,
    headers: { Authorization: `Bearer ${apiKey}`, ...(body && { "Content-Type": "application/json" }) },
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(30_000),
  });
  const answer = await res.json();
  if (!res.ok) throw Object.assign(new Error(answer.code), answer);
  return answer;
}

// call calls the provider's API through the proxy, and nobody else. An answer
// with the header Lanyard-Error is Lanyard's own.
async function call(id, pathOrLink) {
  const to = new URL(pathOrLink, lanyard);
  if (to.origin !== new URL(lanyard).origin) throw new Error("a link leads past Lanyard");
  const res = await fetch(to, {
    headers: { "Lanyard-Key": clientKey, "Connection-Id": id },
    redirect: "error",
    signal: AbortSignal.timeout(30_000),
  });
  if (res.headers.has("Lanyard-Error")) throw Object.assign(new Error(), await res.json(), { id });
  if (!res.ok) throw new Error(`the provider answered ${res.status}`);
  return res;
}

const same = (a, b) => a.length === b.length && timingSafeEqual(Buffer.from(a), Buffer.from(b));
const html = (s) => String(s).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
const app = express();
app.disable("x-powered-by");

app.get("/", async (req, res) => {
  const { connections } = await api("GET", `/v1/connections?user_id=${encodeURIComponent(userID)}`);
  const items = connections.map((c) => `<li>${html(c.integration)} ${html(c.status)} ${html(c.account?.name ?? "")}
    ${html(c.scopes?.granted.join(" "))} <a href="/repos?id=${html(c.id)}">repositories</a>
    ${c.auth_scheme === "OAUTH2" ? `<a href="/connect?id=${html(c.id)}&scope=playlists:read">allow playlists too</a>` : ""}`);
  res.send(`<!doctype html><html lang="en"><title>Accounts</title><h1>Accounts</h1><ul>${items.join("")}</ul>
    <p><a href="/connect?scope=profile:read">Connect an account</a>
    <form method="post" action="/key"><label>API key <input name="key" type="password" autocomplete="off"></label> <button>Connect</button></form>`);
});

// The user goes away to connect an account, or with id that one again.
app.get("/connect", (req, res) => {
  const state = randomBytes(16).toString("base64url");
  const params = { user_id: userID, integration: "demo", redirect_url: `${appURL}/connected`, state };
  if (req.query.id) params.connection_id = String(req.query.id);
  if (req.query.scope) params.scopes = [req.query.scope].flat().join(" ");
  res.cookie("state", state, { path: "/connected", maxAge: 15 * 60_000, httpOnly: true, sameSite: "lax" });
  res.redirect(303, connectLink(params));
});

// The user comes back. State and user are the session's, never the URL's.
app.get("/connected", async (req, res) => {
  const { state = "", error, connection_id: id, completion_code: code } = req.query;
  const ours = /(?:^|; )state=([\w-]+)/.exec(req.headers.cookie ?? "")?.[1];
  res.clearCookie("state", { path: "/connected" });
  if (!ours || !same(String(state), ours)) return res.status(400).send("This link was not for this browser. Please begin again.");
  if (error) return error === "user_denied" ? res.redirect(303, "/") : res.status(502).send(html(error));
  await api("POST", `/v1/connections/${encodeURIComponent(id)}/complete`, { completion_code: code, user_id: userID });
  res.redirect(303, "/");
});

// An API key that the user has typed in, on a page of ours.
app.post("/key", express.urlencoded({ extended: false }), async (req, res) => {
  if (!["same-origin", undefined].includes(req.headers["sec-fetch-site"])) return res.status(403).end();
  await api("POST", "/v1/connections", { integration: "demo_key", user_id: userID, credentials: { api_key: req.body.key } });
  res.redirect(303, "/");
});

// A call of the API, page by page: the links in its answers lead back to Lanyard.
app.get("/repos", async (req, res) => {
  const connection = await api("GET", `/v1/connections/${encodeURIComponent(req.query.id)}`);
  if (connection.user_id !== userID) return res.status(404).end();
  const repos = [];
  for (let next = "/user/repos"; next; ) {
    const page = await call(connection.id, next);
    repos.push(...(await page.json()));
    next = /<([^>]+)>; rel="next"/.exec(page.headers.get("Link") ?? "")?.[1];
  }
  res.send(`<!doctype html><html lang="en"><title>Repositories</title><h1>${repos.length} repositories</h1>
    <ol>${repos.map((r) => `<li>${html(r.name)}`).join("")}</ol>`);
});

app.use((err, req, res, _next) => {
  if (err.code === "reconnect_required") return res.redirect(303, `/connect?id=${err.id}`);
  console.error(err.code ?? err.message);
  res.status(502).send("That did not work. Please try again.");
});

app.listen(new URL(appURL).port, "127.0.0.1", () => console.log("open", appURL));
