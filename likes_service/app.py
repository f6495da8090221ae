"""The likes service: who likes which post, and which posts are liked most."""

from contextlib import closing

from fastapi import FastAPI

from common.discovery.directory import Directory
from common.discovery.revocations import RevocationWatcher
from common.jobs.producer import Producer
from common.server.app import create_service
from common.server.dependency import Dependency
from common.server.run import serve
from common.settings import THREADS
from common.tokens import Tokens
from likes_service.models import VALIDATE_TUBE
from likes_service.routes import routes
from likes_service.service import Likes
from likes_service.settings import LikesSettings
from likes_service.store import LikesStore


def create_app(settings: LikesSettings | None = None) -> FastAPI:
    settings = settings or LikesSettings.read()
    store = LikesStore.connect(settings.redis_url, THREADS)
    queue = Producer(settings.beanstalkds, VALIDATE_TUBE)
    dependencies = [Dependency("redis", store), Dependency("beanstalkd", queue, is_required=False)]
    likes = Likes(store, queue)
    directory = Directory(settings.registry_url)
    watcher = RevocationWatcher("users", directory, Tokens.from_settings(settings), "likes")
    app = create_service(
        "likes",
        "Who likes which post, and which posts are liked most.",
        settings,
        [routes],
        dependencies,
        [closing(likes), directory, watcher],
        revocations=watcher.revocations,
    )
    app.state.settings = settings
    app.state.store = store
    app.state.likes = likes
    return app


app = create_app()

if __name__ == "__main__":
    serve(app, app.state.settings)
