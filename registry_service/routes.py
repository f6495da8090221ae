"""HTTP for the registry: read the request, call the store, name the status.

Nothing here blocks, so everything is `async`: the store is the event loop's alone.
"""

from typing import Annotated

from fastapi import Depends, Query, Request, Response, Security

from common.api.auth import TOKEN_OPTIONAL
from common.api.problems import problems
from common.api.routing import router
from common.discovery.models import Instance, Lease, Snapshot
from registry_service.auth import registry_token
from registry_service.models import Heartbeat, NewInstance, Overview, RegistryStatus
from registry_service.store import RegistryStore
from registry_service.watchers import SnapshotWatchers

routes = router("registry")

MAX_WAIT_SECONDS = 30
WITH_REGISTRY_TOKEN = [Security(registry_token)]


async def get_store(request: Request) -> RegistryStore:
    store: RegistryStore = request.app.state.store
    return store


async def get_watchers(request: Request) -> SnapshotWatchers:
    watchers: SnapshotWatchers = request.app.state.watchers
    return watchers


Store = Annotated[RegistryStore, Depends(get_store)]
Epoch = Annotated[str | None, Query(max_length=64, description="Of the table that you have.")]
Version = Annotated[int | None, Query(ge=0, le=2**53, description="Of the table that you have.")]
Wait = Annotated[
    float,
    Query(ge=0, le=MAX_WAIT_SECONDS, allow_inf_nan=False, description="How long to wait for a newer one."),
]


@routes.get("/")
async def overview() -> Overview:
    """What this is, and where the documentation is."""
    return Overview()


@routes.post(
    "/register",
    status_code=201,
    responses=problems(401, 409, 413, 415, 422),
    dependencies=WITH_REGISTRY_TOKEN,
    openapi_extra=TOKEN_OPTIONAL,
)
async def register(instance: NewInstance, store: Store) -> Lease:
    """Register an instance; one at the same place before it is replaced."""
    return Lease(instance_id=store.register(instance).instance_id)


@routes.post(
    "/heartbeat/{instance_id}",
    responses=problems(401, 404, 413, 415, 422),
    dependencies=WITH_REGISTRY_TOKEN,
    openapi_extra=TOKEN_OPTIONAL,
)
async def beat(instance_id: str, store: Store, heartbeat: Heartbeat | None = None) -> Instance:
    """Renew an instance's lease, and say how it is. 404 means: register again."""
    return store.beat(instance_id, heartbeat.status if heartbeat else None)


@routes.delete(
    "/deregister/{instance_id}",
    status_code=204,
    responses=problems(401, 404, 422),
    dependencies=WITH_REGISTRY_TOKEN,
    openapi_extra=TOKEN_OPTIONAL,
)
async def deregister(instance_id: str, store: Store) -> None:
    """Take an instance off the list."""
    store.deregister(instance_id)


@routes.get("/services", response_model=Snapshot, responses=problems(422, 503))
async def services(
    watchers: Annotated[SnapshotWatchers, Depends(get_watchers)],
    epoch: Epoch = None,
    version: Version = None,
    wait: Wait = 0,
) -> Response:
    """All instances of all services.

    With `epoch`, `version` and `wait` the answer comes as soon as there is a
    newer table than yours, and at once if yours is of another epoch.
    """
    return Response(await watchers.snapshot(epoch, version, wait), media_type="application/json")


@routes.get("/services/{service_name}", responses=problems(404))
async def instances(service_name: str, store: Store) -> list[Instance]:
    """The instances of one service: none, if all that were seen have gone."""
    return store.instances(service_name)


@routes.get("/status")
async def status(store: Store) -> RegistryStatus:
    """How long the registry runs, how many instances of what it knows, and whether it doubts itself."""
    return store.status()
