"""The gateway: one front door to all services, and one page on which all of them can be tried."""

from typing import Annotated, ClassVar, Literal

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, field_validator
from starlette.middleware import Middleware

from common.api.routing import from_state, router
from common.discovery.directory import Directory
from common.discovery.models import Status, addresses
from common.discovery.revocations import RevocationWatcher
from common.errors import RETRY_SECONDS
from common.gateway.login_limits import LoginLimiter
from common.gateway.middleware import edge_middleware
from common.gateway.openapi import ApiDocument
from common.gateway.proxy import READ_SECONDS, ReverseProxy
from common.gateway.rate_limits import Limiter, Policy, SharedRedis, quota
from common.gateway.routes import Route, matcher
from common.gateway.settings import EdgeSettings
from common.gateway.status.routes import PATHS as STATUS_PATHS
from common.gateway.status.routes import status_routes
from common.gateway.status.scraper import Scraper
from common.gateway.streams import Streams
from common.gateway.transport import Transport
from common.server import protocol
from common.server.app import create_service
from common.server.health import unavailable
from common.server.run import serve
from common.tokens import Tokens
from common.version import VERSION

# These routes hash a password with Argon2, which is slow; one may be guessed at 30 times in 20 minutes.
REGISTER_LIMIT = Policy("register", quota("60/min burst 100"), by_address=True)
LOGIN_LIMIT = Policy("login", quota("60/min burst 100"), by_address=True)
LOGIN_ATTEMPTS = quota("30/hour burst 20")

# The first path that fits wins, so a literal path stands before a template.
ROUTES = {
    "/register": Route("users", REGISTER_LIMIT, is_sign_in=True),
    "/login": Route("users", LOGIN_LIMIT, is_sign_in=True),
    "/logout": Route("users"),
    "/users/follow/{username}": Route("users"),
    "/users/unfollow/{username}": Route("users"),
    "/users/block/{username}": Route("users"),
    "/users/unblock/{username}": Route("users"),
    "/users/mute/{username}": Route("users"),
    "/users/unmute/{username}": Route("users"),
    "/users": Route("users"),
    "/users/{username}": Route("users"),
    "/users/{username}/password": Route("users", LOGIN_LIMIT, is_sign_in=True, account_segment=2),
    "/users/{username}/deletion": Route("users", LOGIN_LIMIT, is_sign_in=True, account_segment=2),
    "/users/{username}/followees": Route("users"),
    "/users/{username}/followers": Route("users"),
    "/users/{username}/relationships": Route("users"),
    "/users/{username}/blocks": Route("users"),
    "/users/{username}/mutes": Route("users"),
    "/search/users": Route("users"),
    "/users/{username}/likes": Route("likes"),
    "/posts": Route("timelines", honours_idempotency_key=True),
    "/posts/async": Route("timelines"),
    "/posts/counts": Route("timelines"),
    "/posts/id/{post_id}": Route("timelines"),
    "/posts/id/{post_id}/versions": Route("timelines"),
    "/posts/id/{post_id}/replies": Route("timelines"),
    "/posts/id/{post_id}/context": Route("timelines"),
    "/posts/id/{post_id}/repost": Route("timelines"),
    "/posts/id/{post_id}/reposters": Route("timelines"),
    "/posts/id/{post_id}/bookmark": Route("timelines"),
    "/posts/id/{post_id}/pin": Route("timelines"),
    "/posts/home/{username}": Route("timelines"),
    "/posts/{username}": Route("timelines"),
    "/bookmarks": Route("timelines"),
    "/notifications": Route("timelines"),
    "/notifications/unread": Route("timelines"),
    "/notifications/read": Route("timelines"),
    "/notifications/{notification_id}": Route("timelines"),
    "/search/posts": Route("timelines"),
    "/stream": Route("timelines", is_stream=True),
    "/tags": Route("timelines"),
    "/tags/{tag}": Route("timelines"),
    "/likes": Route("likes"),
    "/likes/popular": Route("likes"),
    "/likes/{post_id}": Route("likes"),
    "/likes/{post_id}/count": Route("likes"),
    "/likes/{post_id}/users": Route("likes"),
    "/polls": Route("polls"),
    "/polls/{poll_id}": Route("polls"),
    "/polls/{poll_id}/vote": Route("polls"),
    "/polls/{poll_id}/results": Route("polls"),
}
OWN_PATHS = {"docs", "openapi.json", "health", "livez", "metrics", *STATUS_PATHS}
SERVICES = tuple(dict.fromkeys(route.service_name for route in ROUTES.values()))


State = Status | Literal["down"]


class GatewaySettings(EdgeSettings):
    QUIET_PATHS: ClassVar = (*EdgeSettings.QUIET_PATHS, "/status")

    port: int = 8080

    @field_validator("root_path")
    @classmethod
    def _is_no_path_of_its_own(cls, root_path: str) -> str:
        # Else `/users/alice` could be a path with the prefix, or one from which a proxy has stripped it.
        first = root_path.partition("/")[2].partition("/")[0]
        if first in {path.split("/")[1] for path in ROUTES} | OWN_PATHS:
            raise ValueError("the API has paths that begin like this")
        return root_path


class ServiceStatus(BaseModel):
    """How the best instance of a service is, and how many there are."""

    status: State
    instances: int


class Overview(BaseModel):
    """What this is, where to go on, and how the services are."""

    name: str = "microblog"
    version: str = VERSION
    docs: str = "/docs"
    openapi: str = "/openapi.json"
    services: dict[str, ServiceStatus]


class GatewayHealth(BaseModel):
    """`degraded`: some service has no instance that is up; `unavailable`: nothing can be routed to."""

    status: Literal["ok", "degraded", "unavailable"]
    service: Literal["gateway"] = "gateway"
    version: str = VERSION
    checks: dict[str, State | Literal["ok"]]
    registry: Literal["ok", "unreachable"]


routes = router("gateway")
health_routes = router("health")


Services = Annotated[Directory, from_state("directory")]


@routes.get("/")
async def overview(request: Request, directory: Services) -> Overview:
    """What this is, where the documentation is, and how the services are."""
    root_path = request.app.state.settings.root_path
    return Overview(
        docs=f"{root_path}/docs",
        openapi=f"{root_path}/openapi.json",
        services={name: _service_status(directory, name) for name in SERVICES},
    )


@health_routes.get("/health", responses=unavailable(GatewayHealth))
async def health(directory: Services, response: Response) -> GatewayHealth:
    """Whether every service has an instance that is up; reads memory only, so it is always quick."""
    found: dict[str, State] = {name: _service_status(directory, name).status for name in SERVICES}
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
    """The status of the service's best instance."""
    statuses = [instance.status for instance in directory.instances(name)]
    for status in Status:
        if status in statuses:
            return ServiceStatus(status=status, instances=len(statuses))
    return ServiceStatus(status="down", instances=0)


@routes.get("/openapi.json", include_in_schema=False)
async def document(request: Request) -> Response:
    app: FastAPI = request.app
    api: ApiDocument = app.state.api_document
    return Response(await api.render(app.openapi()), media_type="application/json")


def create_app(settings: GatewaySettings | None = None) -> FastAPI:
    settings = settings or GatewaySettings.read()
    directory = Directory(settings.registry_url)
    transport = Transport(READ_SECONDS)
    watcher = RevocationWatcher("users", directory, Tokens.from_settings(settings), "gateway")
    tokens = Tokens.from_settings(settings, watcher.revocations)
    limiter, login_limiter = _limiters(settings, tokens)
    scraper = Scraper(
        directory,
        transport,
        settings.status_token,
        addresses(settings.registry_url),
        ("gateway", "registry", *SERVICES),
    )
    match = matcher(ROUTES, settings.default_policy)
    streams = Streams()
    app = create_service(
        "gateway",
        "One front door to all services. Sign in with the Authorize button, then try any of them.",
        settings,
        [routes, status_routes],
        resources=[transport, directory, watcher, scraper, *([limiter] if limiter else [])],
        middleware=[
            *edge_middleware(settings),
            Middleware(ReverseProxy, directory, transport, match, limiter, login_limiter, streams),
        ],
        on_shutdown=streams.stop,
        health=health_routes,
        revocations=watcher.revocations,
        openapi_url=None,
        root_path=settings.root_path,
    )
    app.state.settings = settings
    app.state.directory = directory
    app.state.scraper = scraper
    paths = {path: route.service_name for path, route in ROUTES.items()}
    refusals = [protocol.bad_request(), protocol.url_too_long(), protocol.headers_too_large()]
    app.state.api_document = ApiDocument(paths, f"{settings.root_path}/login", directory, transport, refusals)
    return app


def _limiters(settings: GatewaySettings, tokens: Tokens) -> tuple[Limiter | None, LoginLimiter | None]:
    if settings.default_policy is None:
        return None, None
    shared = SharedRedis(settings.rate_limit_storage) if settings.rate_limit_storage else None
    limiter = Limiter(tokens, shared)
    return limiter, LoginLimiter(LOGIN_LIMIT, LOGIN_ATTEMPTS, shared)


app = create_app()

if __name__ == "__main__":
    serve(app, app.state.settings)
