"""What deletions in other services take with them: likes of a post, likes of a user."""

from common.jobs.producer import Producer
from likes_service.models import AccountCleared, AccountDeleted, Event, PostDeleted
from likes_service.store import LikesStore


class Cascade:
    """Applies events of deletions, however often they come."""

    def __init__(self, store: LikesStore, own: Producer, users: Producer) -> None:
        self._store = store
        self._own = own
        self._users = users

    def apply(self, event: Event) -> None:
        match event:
            case PostDeleted():
                self._store.delete_post(event.post_id)
            case AccountDeleted():
                self._clear(event)

    def _clear(self, event: AccountDeleted) -> None:
        self._store.delete_user(event.username)
        if place := self._store.forget_mails(event.username, event.place):
            self._own.put(event.model_copy(update={"place": place}))
            return
        self._users.put(AccountCleared(username=event.username))
