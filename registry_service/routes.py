"""HTTP for the registry: read the request, call the store, name the status.

Nothing here blocks, so everything is `async`: only the event loop touches the store.
"""

from functools import partial
from typing import Annotated

from fastapi import Path, Query, Request, Response, Security

from common.api.auth import TOKEN_OPTIONAL
from common.api.problems import problems
from common.api.routing import from_state, router
from common.discovery.models import Changes, Instance, Lease, Snapshot
from common.fields import EXAMPLE_ID
from registry_service import errors
from registry_service.auth import registry_token
from registry_service.models import Heartbeat, NewInstance, Overview, Position, RegistryStatus, ScrapeTargets
from registry_service.store import MAX_INSTANCES, RegistryStore
from registry_service.watchers import SnapshotWatchers

routes = router("registry")

SERVICES_PATH = "/services"

WITH_REGISTRY_TOKEN = [Security(registry_token)]
TOKEN_ERRORS = (errors.token_required(), errors.invalid_token())


Store = Annotated[RegistryStore, from_state("store")]
InstanceId = Annotated[str, Path(examples=[EXAMPLE_ID])]
ServiceName = Annotated[str, Path(examples=["users"])]
SharesAddress = Annotated[
    bool, Query(description="Whether others of this service that say so, too, may be at the same address.")
]


@routes.get("/")
async def overview() -> Overview:
    """The registry's version, and where its documentation is."""
    return Overview()


@routes.post(
    "/register",
    status_code=201,
    responses=problems(*TOKEN_ERRORS, errors.too_many_instances(MAX_INSTANCES)),
    dependencies=WITH_REGISTRY_TOKEN,
    openapi_extra=TOKEN_OPTIONAL,
)
async def register(instance: NewInstance, store: Store, shares_address: SharesAddress = False) -> Lease:
    """Register an instance. It replaces what was registered at its host and port before.

    Instances of a service that share an address replace each other no more: one of them is listed.
    """
    return Lease(instance_id=store.register(instance, shares_address).instance_id)


@routes.post(
    "/heartbeat/{instance_id}",
    responses=problems(*TOKEN_ERRORS, errors.unknown_instance()),
    dependencies=WITH_REGISTRY_TOKEN,
    openapi_extra=TOKEN_OPTIONAL,
)
async def beat(
    instance_id: InstanceId, store: Store, request: Request, heartbeat: Heartbeat | None = None
) -> Instance:
    """Renew an instance's lease, and report its status. After a 404, the instance registers again."""
    again = partial(store.beat, instance_id, heartbeat.status if heartbeat else None)
    request.scope["repeat"] = lambda _: again().model_dump_json().encode()
    return again()


@routes.delete(
    "/deregister/{instance_id}",
    status_code=204,
    responses=problems(*TOKEN_ERRORS, errors.unknown_instance()),
    dependencies=WITH_REGISTRY_TOKEN,
    openapi_extra=TOKEN_OPTIONAL,
)
async def deregister(instance_id: InstanceId, store: Store) -> None:
    """Remove an instance."""
    store.deregister(instance_id)


@routes.get(SERVICES_PATH, response_model=Snapshot | Changes, responses=problems(errors.leaving()))
async def services(
    watchers: Annotated[SnapshotWatchers, from_state("watchers")], position: Annotated[Position, Query()]
) -> Response:
    """All instances of all services.

    With `epoch`, `version` and `wait`, the response comes as soon as there is a
    newer snapshot than the client's, and at once if that is of another epoch.
    Of many changes in a row, a client learns up to 0.6 seconds later.
    With `changes`, the response has only what is new since the client's version,
    unless that is too long ago.
    """
    return Response(await watchers.news(position), media_type="application/json")


@routes.get("/services/{service_name}", responses=problems(errors.service_not_found("users")))
async def instances(service_name: ServiceName, store: Store) -> list[Instance]:
    """The instances of one service; none when all that ever registered are gone."""
    return store.instances(service_name)


@routes.get("/prometheus/targets")
async def prometheus_targets(request: Request, store: Store) -> list[ScrapeTargets]:
    """All instances, workers and the registry among them, as `http_sd_config` of Prometheus reads them."""
    found = [
        (instance.service_name, instance.netloc)
        for instances in store.snapshot().services.values()
        for instance in instances
    ]
    registry = ("registry", request.app.state.settings.instance)
    return [
        ScrapeTargets(targets=[netloc], labels={"service": service, "instance": netloc})
        for service, netloc in (*found, registry)
    ]


@routes.get("/status")
async def status(store: Store) -> RegistryStatus:
    """The registry's uptime, the instances of each service, and whether self-preservation is on."""
    return store.status()
