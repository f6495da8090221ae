"""People who use the suite all the while, each one thing after the other, and hold it to its word."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from threading import Event, Thread
from types import TracebackType
from typing import Self
from uuid import uuid4

import aiohttp
import httpx2

from tests.faults.history import Answer, History, Written
from tests.polling import PATIENCE_SECONDS

PASSWORD = "correct horse"
RETRY_SECONDS = 0.3
# So old may be what a client without a token sees.
STALE_SECONDS = 5
PAGE = 20


class Person:
    """A signed-in user. Nobody else changes what is theirs, so they know what must be true of it."""

    def __init__(
        self,
        name: str,
        token: str,
        people: Sequence[str],
        history: History,
        stop: Event,
        rng: random.Random,
        pause: float,
    ) -> None:
        self.name = name
        self._headers = {"Authorization": f"Bearer {token}"}
        self._others = [other for other in people if other != name]
        self._history = history
        self._stop = stop
        self._rng = rng
        self._pause = pause
        self._written = 0

    async def live(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        habits: dict[Callable[[], Awaitable[None]], int] = {
            self.write: 6, self.write_for_sure: 4, self.write_later: 6, self.answer: 5, self.follow_or_not: 5,
            self.like_or_not: 8, self.like_nothing: 1, self.ask_all: 1, self.vote: 5,
            self.read: 8, self.read_home: 8, self.look_around: 4, self.look_in: 4, self.repost_or_not: 4,
            self.write_to_delete: 3, self.react_to_doomed: 6, self.delete: 2, self.dismiss: 3,
        }  # fmt: skip
        while not self._stop.is_set():
            [habit] = self._rng.choices(list(habits), list(habits.values()))
            began = time.monotonic()
            await habit()
            # A machine that is busy, and therefore slow, gets fewer requests.
            took = time.monotonic() - began
            await asyncio.sleep(self._rng.uniform(0, self._pause) + took)

    async def write(self) -> None:
        text, post = self._new_post()
        answer = await self._ask("post", "POST", "/posts", json={"text": text})
        if answer.is_success:
            self._note(post, answer)
            await self._expect_on_own_timeline(post.id)

    async def answer(self) -> None:
        if not (original := self._some_stored_post()):
            return
        text, post = self._new_post()
        reply = {"text": text, "in_reply_to": original.id}
        answer = await self._ask("post", "POST", "/posts", json=reply)
        if answer.is_success:
            self._note(post, answer)

    async def write_for_sure(self) -> None:
        text, post = self._new_post()
        key = {"Idempotency-Key": str(uuid4())}
        while not self._stop.is_set():
            answer = await self._ask("keyed", "POST", "/posts", json={"text": text}, headers=key)
            if answer.is_success:
                self._note(post, answer)
                return
            await asyncio.sleep(RETRY_SECONDS)

    async def write_later(self) -> None:
        text, post = self._new_post()
        answer = await self._ask("async", "POST", "/posts/async", json={"text": text})
        if answer.is_success:
            post.id = answer.body["id"]

    async def follow_or_not(self) -> None:
        other, wanted = self._rng.choice(self._others), self._rng.random() < 0.7
        verb = "follow" if wanted else "unfollow"
        answer = await self._ask(verb, "POST", f"/users/{verb}/{other}")
        self._history.follows.complete((self.name, other), wanted, answer)

    async def like_or_not(self) -> None:
        if not (post := self._some_stored_post()):
            return
        wanted = self._rng.random() < 0.7
        answer = await self._ask(
            "like" if wanted else "unlike", "POST" if wanted else "DELETE", f"/likes/{post.id}"
        )
        self._history.likes.complete((post.id, self.name), wanted, answer)
        if self._history.likes.of((post.id, self.name)) == {wanted}:
            await self._expect_among_own_likes(post.id, wanted)

    async def like_nothing(self) -> None:
        """A post that does not exist: the like is taken back, so nothing is noted."""
        await self._ask("like", "POST", f"/likes/{uuid4()}")

    async def ask_all(self) -> None:
        poll = {"question": f"{self.name} asks", "options": ["yes", "no", "why"]}
        answer = await self._ask("ask", "POST", "/polls", json=poll)
        if answer.is_success:
            self._history.polls.append(answer.body["id"])

    async def vote(self) -> None:
        """Until it is counted: again after a lost answer, which may say that it was counted already."""
        voted = {poll for poll, name in self._history.votes if name == self.name}
        if not (open_polls := [poll for poll in self._history.polls if poll not in voted]):
            return
        poll, option = self._rng.choice(open_polls), self._rng.randrange(3)
        was_lost = False
        while not self._stop.is_set():
            path = f"/polls/{poll}/vote"
            answer = await self._ask("vote", "POST", path, json={"option": option}, may_be={409})
            if answer.status == 409 and not was_lost:
                self._complain(f"{self.name} has not voted in {poll}, and is told so")
            if not answer.is_away:
                self._history.votes[poll, self.name] = option
                return
            was_lost = True
            await asyncio.sleep(RETRY_SECONDS)
        if was_lost:
            self._history.lost_votes.add((poll, self.name))

    async def repost_or_not(self) -> None:
        if not (post := self._some_stored_post()):
            return
        wanted = self._rng.random() < 0.7
        verb, method = ("repost", "POST") if wanted else ("unrepost", "DELETE")
        answer = await self._ask(verb, method, f"/posts/id/{post.id}/repost")
        self._history.reposts.complete((post.id, self.name), wanted, answer)

    async def write_to_delete(self) -> None:
        """A post that all but its author leave out of what they expect."""
        text, post = self._new_post()
        answer = await self._ask("post", "POST", "/posts", json={"text": text})
        if answer.is_success:
            post.id = answer.body["id"]
            self._history.doomed.append(post)

    async def react_to_doomed(self) -> None:
        """Like or repost a post that may be deleted meanwhile."""
        if not self._history.doomed:
            return
        pair = (self._rng.choice(self._history.doomed).id, self.name)
        if self._rng.random() < 0.5:
            self._history.likes.complete(pair, True, await self._ask("like", "POST", f"/likes/{pair[0]}"))
            return
        answer = await self._ask("repost", "POST", f"/posts/id/{pair[0]}/repost", may_be={404})
        self._history.reposts.complete(pair, True, answer)
        if answer.status == 404 and pair[0] not in self._history.deleting:
            self._complain(f"{pair[0]} is not there, and nobody has deleted it")

    async def delete(self) -> None:
        """Delete a post of one's own; without an answer it is in doubt.

        A gateway that repeats the request meets a 404.
        """
        own = [post for post in self._history.doomed if post.author == self.name]
        if not own:
            return
        post = self._rng.choice(own)
        self._history.doomed.remove(post)
        self._history.deleting.add(post.id)
        answer = await self._ask("delete", "DELETE", f"/posts/id/{post.id}", may_be={404})
        if not answer.is_away:
            self._history.deleted.add(post.id)

    async def dismiss(self) -> None:
        """Remove a notification for good. It may have been taken back meanwhile."""
        inbox = await self._ask("inbox", "GET", "/notifications")
        if not (inbox.is_success and inbox.body):
            return
        one = self._rng.choice(inbox.body)
        told = (self.name, one["kind"], one["actor"], one.get("post_id"))
        self._history.dismissing.add(told)
        answer = await self._ask("dismiss", "DELETE", f"/notifications/{one['id']}", may_be={404})
        if answer.is_success:
            self._history.dismissed.add(told)

    async def read(self) -> None:
        if not (post := self._some_stored_post()):
            return
        answer = await self._ask("read", "GET", f"/posts/id/{post.id}")
        if answer.is_success and answer.body["username"] != post.author:
            self._complain(f"{post.id} is not {post.author}'s")

    async def read_home(self) -> None:
        """Exactly the newest posts of those followed; of a follow in doubt either is right."""
        model = {other: self._history.follows.of((self.name, other)) for other in self._others}
        stored = [post for post in self._history.stored if model.get(post.author) == {True}]
        answer = await self._ask("home", "GET", f"/posts/home/{self.name}")
        if not answer.is_success:
            return
        shown = {post["id"] for post in answer.body}
        oldest = min(shown) if len(shown) == PAGE else ""
        if missing := {post.id for post in stored if post.id > oldest} - shown:
            self._complain(f"{missing} are not on the home timeline of {self.name}")
        if strange := {post["username"] for post in answer.body if True not in model[post["username"]]}:
            self._complain(f"{self.name} does not follow {strange}")

    async def look_around(self) -> None:
        kind, path = self._rng.choice(
            [
                ("public", "/posts"),
                ("popular", "/likes/popular"),
                ("profile", f"/users/{self._rng.choice(self._others)}"),
                ("followees", f"/users/{self.name}/followees"),
            ]
        )
        await self._ask(kind, "GET", path)

    async def look_in(self) -> None:
        """As a client without a token, who may not see what is new."""
        settled = time.monotonic() - STALE_SECONDS
        stored = {post.id for post in self._history.stored[-PAGE:] if post.promised < settled}
        answer = await self._ask("public", "GET", "/posts", is_signed_in=False)
        if not answer.is_success:
            return
        shown = {post["id"] for post in answer.body}
        oldest = min(shown) if len(shown) == PAGE else ""
        if missing := {post for post in stored if post > oldest} - shown:
            self._complain(f"{missing} are not on the public timeline")

    async def _ask(
        self,
        kind: str,
        method: str,
        path: str,
        json: object = None,
        headers: dict[str, str] | None = None,
        may_be: frozenset[int] | set[int] = frozenset(),
        is_signed_in: bool = True,
    ) -> Answer:
        started, status, body = time.monotonic(), 0, None
        headers = (self._headers if is_signed_in else {}) | (headers or {})
        try:
            request = self._session.request(method, path, json=json, headers=headers)
            async with request as response:
                body = await response.json(content_type=None)
                status = response.status
        except (aiohttp.ClientError, TimeoutError):
            pass
        answer = Answer(kind, started, time.monotonic(), status, body)
        self._history.answers.append(answer)
        if not (answer.is_success or answer.is_away or status in may_be):
            self._complain(f"{method} {path}: {status} {body}")
        return answer

    async def _expect_on_own_timeline(self, post_id: str) -> None:
        answer = await self._ask("timeline", "GET", f"/posts/{self.name}")
        if answer.is_success and post_id not in {post["id"] for post in answer.body}:
            self._complain(f"{self.name} does not see {post_id}")

    async def _expect_among_own_likes(self, post_id: str, wanted: bool) -> None:
        answer = await self._ask("liked", "GET", f"/users/{self.name}/likes?limit=100")
        if not answer.is_success:
            return
        is_there = post_id in {like["post_id"] for like in answer.body}
        # An older like may be on a later page.
        if is_there is not wanted and (not wanted or len(answer.body) < 100):
            late = f"{self.name} sees {post_id} {'not ' * wanted}among their likes"
            self._history.late.append((answer.started, late))

    def _new_post(self) -> tuple[str, Written]:
        self._written += 1
        text = f"{self.name} {self._written}"
        post = self._history.posts[text] = Written(self.name)
        return text, post

    def _note(self, post: Written, answer: Answer) -> None:
        post.id, post.promised = answer.body["id"], answer.ended
        self._history.stored.append(post)

    def _some_stored_post(self) -> Written | None:
        return self._rng.choice(self._history.stored) if self._history.stored else None

    def _complain(self, complaint: str) -> None:
        self._history.wrong.append(complaint)


class Load:
    """All of them at once, in a thread of their own, for as long as the context lasts.

    Between two requests, each of them pauses for up to `pause` seconds.
    """

    def __init__(self, url: str, people: Sequence[str], seed: int, pause: float) -> None:
        self.history = History()
        self._url = url
        self._stop = Event()
        self.tokens = _sign_up(url, people)
        self._people = [
            Person(name, token, people, self.history, self._stop, random.Random(f"{seed} {name}"), pause)
            for name, token in self.tokens.items()
        ]
        self._thread = Thread(target=lambda: asyncio.run(self._run()), name="load")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    async def _run(self) -> None:
        async with (
            aiohttp.ClientSession(
                self._url, timeout=aiohttp.ClientTimeout(total=PATIENCE_SECONDS)
            ) as session,
            asyncio.TaskGroup() as group,
        ):
            for person in self._people:
                group.create_task(person.live(session))


def _sign_up(url: str, people: Sequence[str]) -> dict[str, str]:
    tokens: dict[str, str] = {}
    with httpx2.Client(verify=False, base_url=url, timeout=PATIENCE_SECONDS, trust_env=False) as client:
        for name in people:
            user = {"username": name, "password": PASSWORD, "email": f"{name}@example.com"}
            client.post("/register", json=user).raise_for_status()
            tokens[name] = sign_in(client, name)
    return tokens


def sign_in(client: httpx2.Client, name: str) -> str:
    """A token of this user's."""
    answer = client.post("/login", json={"username": name, "password": PASSWORD})
    token: str = answer.raise_for_status().json()["access_token"]
    return token
