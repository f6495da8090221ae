"""What deletions in other services take with them: likes of a post, likes of a user."""

from common.jobs.producer import Producer
from likes_service.models import AccountCleared, AccountDeleted, Event, PostDeleted
from likes_service.store import LikesStore


class Cascade:
    """Applies events of deletions, however often they come."""

    def __init__(self, store: LikesStore, users: Producer) -> None:
        self._store = store
        self._users = users

    def apply(self, event: Event) -> None:
        match event:
            case PostDeleted():
                self._store.delete_post(event.post_id)
            case AccountDeleted():
                self._store.delete_user(event.username)
                self._users.put(AccountCleared(username=event.username))
