"""The polls service: questions, votes, results."""

from functools import partial

from fastapi import FastAPI

from common.discovery.directory import Directory
from common.discovery.revocations import RevocationWatcher
from common.jobs.background import Background
from common.server.app import create_service
from common.server.dependency import Dependency
from common.server.run import serve
from common.tokens import Tokens
from polls_service.cascade import apply_events
from polls_service.routes import routes
from polls_service.settings import PollsSettings
from polls_service.store import PollsStore


def create_app(settings: PollsSettings | None = None) -> FastAPI:
    settings = settings or PollsSettings.read()
    store = PollsStore.connect(
        settings.dynamodb_url,
        settings.aws_region,
        settings.aws_access_key_id,
        settings.aws_secret_access_key,
        settings.dynamodb_polls_table,
        settings.aws_session_token,
    )
    directory = Directory(settings.registry_url)
    watcher = RevocationWatcher("users", directory, Tokens.from_settings(settings), "polls")
    apply = partial(apply_events, store, settings.beanstalkds)
    app = create_service(
        "polls",
        "Questions, votes, results.",
        settings,
        [routes],
        [Dependency("dynamodb", store, store.prepare)],
        [directory, watcher, Background(apply)],
        revocations=watcher.revocations,
    )
    app.state.settings = settings
    app.state.store = store
    return app


app = create_app()

if __name__ == "__main__":
    serve(app, app.state.settings)
