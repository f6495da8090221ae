"""The polls service: questions, votes, results."""

from fastapi import FastAPI

from common.server.app import create_service
from common.server.dependency import Dependency
from common.server.run import serve
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
    )
    app = create_service(
        "polls",
        "Questions, votes, results.",
        settings,
        [routes],
        [Dependency("dynamodb", store, store.prepare)],
    )
    app.state.settings = settings
    app.state.store = store
    return app


app = create_app()

if __name__ == "__main__":
    serve(app, app.state.settings)
