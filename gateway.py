"""The gateway: one front door to all services, and one page on which all of them can be tried."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, Request, Response
from pydantic import BaseModel
from starlette.middleware import Middleware
from throttled.rate_limiter import per_hour, per_min

from common import __version__
from common.api.routing import router
from common.discovery.directory import Directory
from common.discovery.models import Status
from common.errors import RETRY_SECONDS
from common.gateway import middleware
from common.gateway.openapi import ApiDocument
from common.gateway.proxy import READ_SECONDS, Forwarder, Resolve
from common.gateway.rate_limits import Limiter, Policy, SignInPolicy
from common.gateway.routes import Destination
from common.gateway.settings import EdgeSettings
from common.gateway.transport import AiohttpTransport
from common.server.app import create_service
from common.server.health import unavailable
from common.server.run import serve
from common.tokens import Tokens

SERVICES = ("users", "timelines", "likes", "polls")

# Which path goes where. The first that fits wins, so what is literal stands before what is not.
ROUTES = {
    "/register": "users",
    "/login": "users",
    "/users/follow/{username}": "users",
    "/users/unfollow/{username}": "users",
    "/users/{username}": "users",
    "/users/{username}/followees": "users",
    "/users/{username}/likes": "likes",
    "/posts": "timelines",
    "/posts/async": "timelines",
    "/posts/id/{post_id}": "timelines",
    "/posts/home/{username}": "timelines",
    "/posts/{username}": "timelines",
    "/likes/popular": "likes",
    "/likes/{post_id}": "likes",
    "/likes/{post_id}/count": "likes",
    "/polls": "polls",
    "/polls/{poll_id}": "polls",
    "/polls/{poll_id}/vote": "polls",
    "/polls/{poll_id}/results": "polls",
}

# The paths whose POST may be sent again under the same Idempotency-Key.
KEYED = {"/posts"}

# Argon2 makes both of these dear, and of guesses no more than 30 in the first quarter of an hour may be made.
STRICTER = {
    "/register": Policy("register", per_min(60, burst=100), by_address=True),
    "/login": SignInPolicy("login", per_min(60, burst=100), guesses=per_hour(30, burst=20)),
}


class GatewaySettings(EdgeSettings):
    port: int = 8080


class ServiceStatus(BaseModel):
    """How the best instance of a service is, and how many there are."""

    status: Status | Literal["down"]
    instances: int


class Overview(BaseModel):
    """What this is, where to go on, and how the services are."""

    name: str = "microblog"
    version: str = __version__
    docs: str = "/docs"
    openapi: str = "/openapi.json"
    services: dict[str, ServiceStatus]


class GatewayHealth(BaseModel):
    """`degraded`: some service has no instance that is up; `unavailable`: nothing can be routed to."""

    status: Literal["ok", "degraded", "unavailable"]
    service: Literal["gateway"] = "gateway"
    version: str = __version__
    checks: dict[str, Status | Literal["ok", "down"]]
    registry: Literal["ok", "unreachable"]


routes = router("gateway")
health_routes = router("health")


async def get_directory(request: Request) -> Directory:
    directory: Directory = request.app.state.directory
    return directory


Services = Annotated[Directory, Depends(get_directory)]


@routes.get("/")
async def overview(directory: Services) -> Overview:
    """What this is, where the documentation is, and how the services are."""
    return Overview(services={name: _service_status(directory, name) for name in SERVICES})


@health_routes.get("/health", responses=unavailable(GatewayHealth))
async def health(directory: Services, response: Response) -> GatewayHealth:
    """Whether every service has an instance that is up; asks nobody, so it is always quick."""
    found = {name: _service_status(directory, name).status for name in SERVICES}
    is_routable = any(status not in ("down", Status.DRAINING) for status in found.values())
    is_whole = all(status is Status.UP for status in found.values())
    if not is_routable:
        response.status_code = 503
        response.headers["Retry-After"] = str(RETRY_SECONDS)
    return GatewayHealth(
        status="ok" if is_whole else "degraded" if is_routable else "unavailable",
        checks={name: "ok" if status is Status.UP else status for name, status in found.items()},
        registry="ok" if directory.is_current else "unreachable",
    )


def _service_status(directory: Directory, name: str) -> ServiceStatus:
    """A service is as well as the best of its instances."""
    instances = directory.instances(name)
    statuses = {instance.status for instance in instances}
    best = next((status for status in Status if status in statuses), "down")
    return ServiceStatus(status=best, instances=len(instances))


def resolver(paths: Mapping[str, str], ordinary: Policy | None = None) -> Resolve:
    """All templates as one pattern, so that a path is looked at once."""
    destinations = [
        Destination(service, STRICTER.get(path, ordinary), path in KEYED) for path, service in paths.items()
    ]
    groups = (f"({re.sub('{[a-z_]+}', '[^/]+', path)})" for path in paths)
    pattern = re.compile("|".join(groups).encode())

    def resolve(path: bytes) -> Destination | None:
        match = pattern.fullmatch(path)
        return destinations[match.lastindex - 1] if match and match.lastindex else None

    return resolve


@routes.get("/openapi.json", include_in_schema=False)
async def document(request: Request) -> Response:
    app: FastAPI = request.app
    api: ApiDocument = app.state.api_document
    return Response(await api.render(app.openapi()), media_type="application/json")


def create_app(settings: GatewaySettings | None = None) -> FastAPI:
    settings = settings or GatewaySettings.read()
    directory = Directory(settings.registry_url)
    transport = AiohttpTransport(READ_SECONDS)
    limiter = _limiter(settings)
    app = create_service(
        "gateway",
        "One front door to all services. Sign in with the Authorize button, then try any of them.",
        settings,
        [routes],
        companions=[directory],
        resources=[transport, limiter] if limiter else [transport],
        openapi_url=None,
        health=health_routes,
    )
    app.state.settings = settings
    app.state.directory = directory
    app.state.api_document = ApiDocument(ROUTES, directory, transport)
    middleware.install(app, settings)
    # Nearly every request ends here.
    middleware.add_middleware(
        app, Middleware(Forwarder, directory, transport, resolver(ROUTES, settings.ordinary), limiter)
    )
    return app


def _limiter(settings: GatewaySettings) -> Limiter | None:
    if settings.ordinary is None:
        return None
    policies = [settings.ordinary, *STRICTER.values()]
    return Limiter(policies, Tokens.of(settings), settings.rate_limit_storage)


app = create_app()

if __name__ == "__main__":
    serve(app, app.state.settings)
