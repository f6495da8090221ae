"""Plain HTTP requests, each on a connection of its own.

`httpx2.get` makes a TLS context for each request, which takes a tenth of a
second: longer than most tests, and no test speaks TLS with it.
"""

import httpx2

_client = httpx2.Client(verify=False, trust_env=False, limits=httpx2.Limits(max_keepalive_connections=0))

get, post, delete = _client.get, _client.post, _client.delete
