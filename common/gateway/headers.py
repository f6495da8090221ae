"""Hop-by-hop headers (RFC 9110, §7.6.1), for both directions."""

# RFC 9110, §7.6.1, and the older ones that it names.
HOP_BY_HOP = {
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection",
    b"te", b"trailer", b"transfer-encoding", b"upgrade",
}  # fmt: skip
# What only this side says; Host becomes the instance's.
SET_BY_GATEWAY = {
    b"host", b"content-length", b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto",
    b"x-request-id", b"traceparent", b"tracestate",
}  # fmt: skip
NOT_FORWARDED = HOP_BY_HOP | SET_BY_GATEWAY
# Whatever is said of them, they say where the body ends.
FRAMING = {b"content-length", b"transfer-encoding"}

RawHeaders = list[tuple[bytes, bytes]]


def end_to_end_headers(headers: RawHeaders) -> RawHeaders:
    """Without those that `Connection` names, which are for one hop; all names are in lower case."""
    named: set[bytes] = set()
    for name, value in headers:
        if name == b"connection":
            named.update(token.strip().lower() for token in value.split(b","))
    named -= FRAMING
    return [header for header in headers if header[0] not in named] if named else headers
