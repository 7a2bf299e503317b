"""Makes a connect link, with Python's standard library only:

    LANYARD_API_KEY=… python3 sign.py https://connect.example.com integration=github user_id=u1

The link is good for 15 minutes, unless expires=UNIX_SECONDS is given.
"""
import base64, hashlib, hmac, os, sys, time
from urllib.parse import quote, urlencode


def connect_link(public_url, api_key, params):
    endpoint = public_url.rstrip("/") + "/connect"
    query = urlencode({"expires": int(time.time()) + 15 * 60, **params}, quote_via=quote)
    key = hmac.digest(api_key.encode(), b"lanyard link v1", hashlib.sha256)
    mac = hmac.digest(key, f"lanyard-link-v1\n{endpoint}\n{query}".encode(), hashlib.sha256)
    signature = base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
    return f"{endpoint}?{query}&signature={signature}"


print(connect_link(sys.argv[1], os.environ["LANYARD_API_KEY"], dict(p.split("=", 1) for p in sys.argv[2:])))
