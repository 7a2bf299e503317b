// Makes a connect link, with Node's standard library only:
//   LANYARD_API_KEY=… node sign.mjs https://connect.example.com integration=github user_id=u1
// The link is good for 15 minutes, unless expires=UNIX_SECONDS is given.
import { createHmac } from "node:crypto";

const hmac = (key, message) => createHmac("sha256", key).update(message);

export function connectLink(publicURL, apiKey, params) {
  const endpoint = publicURL.replace(/\/+$/, "") + "/connect";
  const expires = Math.floor(Date.now() / 1000) + 15 * 60;
  const query = new URLSearchParams({ expires, ...params }).toString();
  const key = hmac(apiKey, "lanyard link v1").digest();
  const signature = hmac(key, `lanyard-link-v1\n${endpoint}\n${query}`).digest("base64url");
  return `${endpoint}?${query}&signature=${signature}`;
}

const [publicURL, ...pairs] = process.argv.slice(2);
const params = Object.fromEntries(pairs.map((p) => [p.slice(0, p.indexOf("=")), p.slice(p.indexOf("=") + 1)]));
console.log(connectLink(publicURL, process.env.LANYARD_API_KEY, params));
