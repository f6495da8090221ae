"""The registry: which instances are there, and how other services learn of them."""

from fastapi import FastAPI
from starlette.middleware import Middleware

from common.server.app import create_service
from common.server.run import serve
from registry_service.clock import StallFreeClock
from registry_service.protocol import RepeatProtocol
from registry_service.routes import routes
from registry_service.settings import RegistrySettings
from registry_service.shortcut import Shortcut
from registry_service.store import RegistryStore
from registry_service.watchers import SnapshotWatchers


def create_app(settings: RegistrySettings | None = None) -> FastAPI:
    settings = settings or RegistrySettings.read()
    store = RegistryStore(StallFreeClock())
    watchers = SnapshotWatchers(store)
    app = create_service(
        "registry",
        "Who is there: services register here, and find each other.",
        settings.model_copy(update={"registry_url": None}),  # it is found by REGISTRY_URL, not in itself
        [routes],
        resources=[watchers],
        on_shutdown=watchers.stop,
        middleware=[Middleware(Shortcut, watchers=watchers)],
    )
    app.state.settings = settings
    app.state.registry_tokens = settings.registry_tokens
    app.state.store = store
    app.state.watchers = watchers
    return app


app = create_app()

if __name__ == "__main__":
    serve(app, app.state.settings, protocol=RepeatProtocol)
