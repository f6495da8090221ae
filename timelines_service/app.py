"""The timelines service: posts, and the timelines made of them."""

from contextlib import closing

from fastapi import FastAPI

from common.discovery.client import ServiceClient
from common.discovery.directory import Directory
from common.discovery.revocations import RevocationWatcher
from common.jobs.background import Background
from common.jobs.producer import Producer
from common.jobs.relay import Relay
from common.server.app import create_service
from common.server.dependency import Dependency
from common.server.run import serve
from common.tokens import Tokens
from timelines_service import mark_routes, notification_routes, stream_routes, thread_routes
from timelines_service.clients import PollsClient, UsersClient
from timelines_service.models import TUBE
from timelines_service.routes import routes
from timelines_service.service import Timelines
from timelines_service.settings import TimelinesSettings
from timelines_service.store import TimelinesStore
from timelines_service.stream_feed import StreamFeed
from timelines_service.streams import Streams


def create_app(settings: TimelinesSettings | None = None) -> FastAPI:
    settings = settings or TimelinesSettings.read()
    store = TimelinesStore.connect(settings.database, settings.read_database)
    queue = Producer(settings.beanstalkds, TUBE)
    directory = Directory(settings.registry_url)
    tokens = Tokens.from_settings(settings)
    to_users, to_polls = (ServiceClient(name, directory, tokens, "timelines") for name in ("users", "polls"))
    users = UsersClient(to_users)
    streams = Streams(StreamFeed(store), users)
    watcher = RevocationWatcher("users", directory, tokens, "timelines")
    app = create_service(
        "timelines",
        "Posts, and the timelines made of them.",
        settings,
        [
            routes,
            thread_routes.routes,
            mark_routes.routes,
            notification_routes.routes,
            stream_routes.routes,
        ],
        [Dependency("postgres", store, store.prepare), Dependency("beanstalkd", queue, is_required=False)],
        [
            directory,
            closing(to_users),
            closing(to_polls),
            watcher,
            streams,
            Relay(store.outbox, settings.beanstalkds),
            *([Background(store.replica.watch)] if store.replica else []),
        ],
        on_shutdown=streams.stop,
        revocations=watcher.revocations,
    )
    app.state.settings = settings
    app.state.store = store
    app.state.streams = streams
    app.state.timelines = Timelines(store, queue, users, PollsClient(to_polls))
    return app


app = create_app()

if __name__ == "__main__":
    serve(app, app.state.settings)
