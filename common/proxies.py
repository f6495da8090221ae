"""Behind a proxy of one's own: what it says of the client is taken for true, from it and nobody else."""

from typing import Any

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware


class TrustedProxies(ProxyHeadersMiddleware):
    """uvicorn's middleware for `X-Forwarded-For` and `-Proto`, and the same for `X-Forwarded-Host`.

    Several proxies in a row may be trusted: the client is the last one in the
    list who is not.
    """

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["client"] and scope["client"][0] in self.trusted_hosts:
            hosts = [value for name, value in scope["headers"] if name == b"x-forwarded-host"]
            if hosts:
                scope["headers"] = [
                    (name, hosts[-1] if name == b"host" else value) for name, value in scope["headers"]
                ]
        await super().__call__(scope, receive, send)
