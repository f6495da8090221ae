"""Tokens that no service may accept: signed wrongly, or rightly and saying something wrong.

Those that are signed rightly could only be made by who knows the secret; they
must not be accepted, or lead to an error, all the same.
"""

import base64
import json
import time
from typing import Any

from jose import jws, jwt

from common.settings import DEFAULT_JWT_SECRET

SECRET = DEFAULT_JWT_SECRET
PUBLIC_KEY = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----"


def claims(**change: Any) -> dict[str, Any]:
    """What a good token says, but for this; None leaves a claim out."""
    now = int(time.time())
    changed = {"sub": "alice", "iat": now, "exp": now + 3600, "jti": "1"} | change
    return {name: value for name, value in changed.items() if value is not None}


def signed(secret: str = SECRET, algorithm: str = "HS256", **change: Any) -> str:
    return jwt.encode(claims(**change), secret, algorithm)


def headed(**header: Any) -> str:
    """Signed rightly, with a header that says more."""
    return jwt.encode(claims(), SECRET, "HS256", headers=header)


def saying(payload: str) -> str:
    """Signed rightly, whatever this is."""
    return jws.sign(payload.encode(), SECRET, algorithm="HS256")


def segment(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def unsigned(header: object, signature: str = "", **change: Any) -> str:
    parts = [segment(json.dumps(part).encode()) for part in (header, claims(**change))]
    return ".".join([*parts, signature])


GOOD = signed()
HEADER, PAYLOAD, SIGNATURE = GOOD.split(".")
# The last of 43 characters has two bits that no byte of the signature is made of.
TWIN = SIGNATURE[:-1] + chr(ord(SIGNATURE[-1]) + 1)
FOREVER = 2**33

BAD = {
    # not a token
    "nothing": "",
    "a word": "x",
    "dots": "..",
    "one part": HEADER,
    "two parts": f"{HEADER}.{PAYLOAD}",
    "four parts": f"{GOOD}.{SIGNATURE}",
    "five parts, as if encrypted": f"{GOOD}.{SIGNATURE}.{SIGNATURE}",
    "long": "x" * 5_000,
    "long, in three parts": ".".join(["x" * 1_600] * 3),
    "not ASCII": "tökén",
    "not base64": f"{HEADER}.{PAYLOAD}.{'!' * 43}",
    # headers
    "a header that is no object": segment(b"[]") + f".{PAYLOAD}.{SIGNATURE}",
    "a header that is null": segment(b"null") + f".{PAYLOAD}.{SIGNATURE}",
    "a header that is no JSON": segment(b"{") + f".{PAYLOAD}.{SIGNATURE}",
    "a header that is no UTF-8": segment(b"\xff") + f".{PAYLOAD}.{SIGNATURE}",
    "a header of many brackets": segment(b"[" * 3_000) + ".e30.AAAA",
    "a header of many braces": segment(b'{"a":' * 600) + ".e30.AAAA",
    "a header of many digits": segment(b"1" * 3_000) + ".e30.AAAA",
    "no header": f".{PAYLOAD}.{SIGNATURE}",
    # algorithms
    "alg none": unsigned({"alg": "none", "typ": "JWT"}),
    "alg None": unsigned({"alg": "None"}),
    "alg NONE": unsigned({"alg": "NONE"}),
    "alg nOnE": unsigned({"alg": "nOnE"}),
    "alg none with a signature": unsigned({"alg": "none"}, SIGNATURE),
    "alg empty": unsigned({"alg": ""}, SIGNATURE),
    "alg null": unsigned({"alg": None}, SIGNATURE),
    "alg a number": unsigned({"alg": 256}, SIGNATURE),
    "alg a list": unsigned({"alg": ["HS256"]}, SIGNATURE),
    "alg an object": unsigned({"alg": {"HS256": 1}}, SIGNATURE),
    "alg in lower case": unsigned({"alg": "hs256"}, SIGNATURE),
    "no alg": unsigned({"typ": "JWT"}, SIGNATURE),
    "HS384": signed(algorithm="HS384"),
    "HS512": signed(algorithm="HS512"),
    "RS256": unsigned({"alg": "RS256"}, SIGNATURE),
    "PS256": unsigned({"alg": "PS256"}, SIGNATURE),
    "ES256": unsigned({"alg": "ES256"}, SIGNATURE),
    "EdDSA": unsigned({"alg": "EdDSA"}, SIGNATURE),
    "alg of an encryption": unsigned({"alg": "dir", "enc": "A128GCM", "zip": "DEF"}, SIGNATURE),
    # keys
    "another secret": signed(secret="another secret"),
    "a secret with a space more": signed(secret=SECRET + " "),
    "a public key as the secret": unsigned({"alg": "HS256", "x5c": [PUBLIC_KEY]}, SIGNATURE),
    "a key of its own": headed(jwk={"kty": "oct", "k": "eA"}),
    "a key elsewhere": headed(jku="http://127.0.0.1:1/keys"),
    "a certificate elsewhere": headed(x5u="http://127.0.0.1:1/certificate"),
    "a key in a file": headed(kid="../../../../dev/null"),
    "a key in a table": headed(kid="1' UNION SELECT 'x"),
    # what has to be understood
    "an extension that is critical": headed(crit=["exp"], exp=1),
    "an unencoded payload": headed(b64=False, crit=["b64"]),
    "another type": headed(typ="at+jwt"),
    "another content": headed(cty="JWT"),
    # signatures
    "no signature": f"{HEADER}.{PAYLOAD}.",
    "half a signature": f"{HEADER}.{PAYLOAD}.{SIGNATURE[:22]}",
    "another token's signature": f"{HEADER}.{PAYLOAD}.{signed(jti='2').rpartition('.')[2]}",
    "another payload": ".".join([HEADER, signed(sub="bobby").split(".")[1], SIGNATURE]),
    "a signature with padding": f"{GOOD}=",
    "a signature with characters between": f"{HEADER}.{PAYLOAD}.{SIGNATURE[:9]}~{SIGNATURE[9:]}",
    "a signature's twin": f"{HEADER}.{PAYLOAD}.{TWIN}",
    "an escaped dot": GOOD.replace(".", "%2e"),
    # times
    "expired long ago": signed(exp=1),
    "expired just now": signed(exp=int(time.time()) - 1),
    "no exp": signed(exp=None),
    "exp a word": signed(exp="soon"),
    "exp a number in a text": signed(exp=str(FOREVER)),
    "exp a list": signed(exp=[FOREVER]),
    "exp an object": signed(exp={"at": FOREVER}),
    "exp true": signed(exp=True),
    "exp infinite": saying('{"sub": "alice", "iat": 1, "exp": Infinity, "jti": "1"}'),
    "exp too large for a float": saying('{"sub": "alice", "iat": 1, "exp": 1e999, "jti": "1"}'),
    "exp no number": saying('{"sub": "alice", "iat": 1, "exp": NaN, "jti": "1"}'),
    "exp negative": signed(exp=-1),
    "no iat": signed(iat=None),
    "iat a word": signed(iat="now"),
    "issued in the future": signed(iat=FOREVER, exp=FOREVER + 60),
    "not yet valid": signed(nbf=FOREVER),
    "nbf a word": signed(nbf="now"),
    # who, for whom, by whom
    "no sub": signed(sub=None),
    "sub empty": signed(sub=""),
    "sub a number": saying('{"sub": 1, "iat": 1, "exp": 9999999999, "jti": "1"}'),
    "sub a list": saying('{"sub": ["alice"], "iat": 1, "exp": 9999999999, "jti": "1"}'),
    "sub null": saying('{"sub": null, "iat": 1, "exp": 9999999999, "jti": "1"}'),
    "sub a reserved name": signed(sub="admin"),
    "sub no name": signed(sub="a b"),
    "sub with a line break": signed(sub="alice\n"),
    "sub with NUL": signed(sub="alice\0"),
    "sub long": signed(sub="a" * 31),
    "sub a service without a name": signed(sub="service:"),
    "sub a service in another case": signed(sub="Service:likes"),
    "sub a service with more": signed(sub="service:likes alice"),
    "no jti": signed(jti=None),
    "jti a number": saying('{"sub": "alice", "iat": 1, "exp": 9999999999, "jti": 1}'),
    "another issuer": signed(iss="https://example.com"),
    "another audience": signed(aud="another"),
    "a list of audiences": signed(aud=["another", "alice"]),
    "a refresh token": signed(typ="refresh"),
    # payloads
    "no payload": f"{HEADER}..{SIGNATURE}",
    "a payload of many brackets": saying("[" * 700),
    "a payload that is a list": saying("[]"),
    "a payload that is a text": saying('"alice"'),
    "a payload that is null": saying("null"),
    "a payload that is no JSON": saying("alice"),
    "an empty payload": saying("{}"),
}
