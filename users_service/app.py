"""The users service: accounts, sign-in, who follows whom."""

from functools import partial

from fastapi import FastAPI

from common.jobs.background import Background
from common.jobs.relay import Relay
from common.revocations import Revocations
from common.server.app import create_service
from common.server.dependency import Dependency
from common.server.run import serve
from users_service import deletion_worker, relation_routes
from users_service.passwords import Passwords
from users_service.routes import routes
from users_service.seal import Seal
from users_service.service import Accounts
from users_service.settings import UsersSettings
from users_service.store import UsersStore
from users_service.watchers import RevocationWatchers


def create_app(settings: UsersSettings | None = None) -> FastAPI:
    settings = settings or UsersSettings.read()
    store = UsersStore.connect(settings.database, settings.read_database)
    revocations = Revocations()
    watchers = RevocationWatchers(store.revocations, revocations)
    app = create_service(
        "users",
        "Accounts, sign-in, who follows whom.",
        settings,
        [routes, relation_routes.routes],
        [Dependency("postgres", store, store.prepare)],
        [
            watchers,
            Relay(store.outbox, settings.beanstalkds),
            *([Background(store.replica.watch)] if store.replica else []),
            Background(partial(deletion_worker.run, store, settings.beanstalkds)),
        ],
        on_shutdown=watchers.stop,
        revocations=revocations,
    )
    app.state.settings = settings
    app.state.store = store
    app.state.accounts = Accounts(store, Passwords(), app.state.tokens, watchers.refresh)
    app.state.watchers = watchers
    app.state.seal = Seal(settings.jwt_secret)
    return app


app = create_app()

if __name__ == "__main__":
    serve(app, app.state.settings)
