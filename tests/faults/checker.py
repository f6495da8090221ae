"""What is there when all is quiet again, against what was promised."""

import mailbox
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import greenstalk
import httpx2

from tests.faults.history import History, Pair
from tests.faults.load import sign_in
from tests.pages import pages
from tests.polling import PATIENCE_SECONDS

# The recipient, the kind, the actor, the post.
Told = tuple[str, str, str, str | None]


class Checker:
    """Everything that the people may see, read once; and what of it should not be so."""

    def __init__(self, url: str, people: list[str], history: History, mails: Path) -> None:
        self.lost: set[str] = set()
        self.doubled: set[str] = set()
        self.wrong: set[str] = set()
        self._history = history
        with httpx2.Client(
            verify=False, base_url=url, timeout=PATIENCE_SECONDS, trust_env=False
        ) as self._client:
            posts = self._compare_posts()
            authors = {post["id"]: post["username"] for post in posts}
            follows = self._compare_follows(people)
            likes = self._compare_likes(people)
            self._compare_votes()
            self._compare_notifications(people, _causes(posts, authors, follows, likes))
        told = self._compare_mails(mails)
        # The likes of which nobody was told: who dies with a mail in hand may lose that one.
        self.unnotified = {(post, name) for post, name in likes if authors.get(post, name) != name} - told

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.doubled or self.wrong)

    def _compare_posts(self) -> list[dict[str, Any]]:
        """All of them."""
        posts = list(self._pages("/posts?limit=100"))
        found = [(post["id"], post["text"]) for post in posts]
        promised = {(post.id, text) for text, post in self._history.posts.items() if post.id}
        counts = Counter(text for _, text in found)
        self.lost |= {f"the post {post}" for post in promised - set(found)}
        self.doubled |= {f"the post {text!r}" for text, count in counts.items() if count > 1}
        self.wrong |= {f"nobody wrote {text!r}" for text in counts if text not in self._history.posts}
        return posts

    def _compare_follows(self, people: list[str]) -> set[Pair]:
        """Who follows whom."""
        found = {
            (name, other)
            for name in people
            for other in self._get(f"/users/{name}/followees?limit={len(people)}")
        }
        self.lost |= {f"the follow {pair}" for pair in self._history.follows.missing(found)}
        self.wrong |= {f"the follow {pair}" for pair in self._history.follows.strange(found)}
        return found

    def _compare_likes(self, people: list[str]) -> set[Pair]:
        """The posts and who likes them."""
        found: set[Pair] = {
            (like["post_id"], name)
            for name in people
            for like in self._pages(f"/users/{name}/likes?limit=100")
        }
        self.lost |= {f"the like {pair}" for pair in self._history.likes.missing(found)}
        self.wrong |= {f"the like {pair}" for pair in self._history.likes.strange(found)}
        counts = Counter(post for post, _ in found)
        ranking = {one["post_id"]: one["count"] for one in self._pages("/likes/popular?limit=100")}
        self.wrong |= {f"the ranking of {post}" for post, _ in (counts - Counter(ranking)).items()}
        self.wrong |= {f"the ranking of {post}" for post, _ in (Counter(ranking) - counts).items()}
        for post in {post.id for post in self._history.stored}:
            if (count := self._get(f"/likes/{post}/count")["count"]) != counts[post]:
                self.wrong.add(f"{count} likes of {post}, which {counts[post]} like")
        return found

    def _compare_votes(self) -> None:
        promised = Counter((poll, option) for (poll, _), option in self._history.votes.items())
        in_doubt = Counter(poll for poll, _ in self._history.lost_votes)
        for poll in self._history.polls:
            results = self._get(f"/polls/{poll}/results")
            for result in results["results"]:
                surplus = result["votes"] - promised[poll, result["option"]]
                if surplus < 0:
                    self.lost.add(f"a vote in {poll}")
                elif surplus > in_doubt[poll]:
                    self.doubled.add(f"a vote in {poll}")
            if results["total_votes"] != sum(result["votes"] for result in results["results"]):
                self.wrong.add(f"the sum of {poll}")

    def _compare_notifications(self, people: list[str], causes: set[Told]) -> None:
        """One for each like, follow and reply that is there, and no other."""
        counts = Counter(
            (name, one["kind"], one["actor"], one.get("post_id"))
            for name in people
            for one in self._pages("/notifications?limit=100", sign_in(self._client, name))
        )
        self.lost |= {f"the notification {told}" for told in causes - counts.keys()}
        self.wrong |= {f"the notification {told}" for told in counts.keys() - causes}
        self.doubled |= {f"the notification {told}" for told, count in counts.items() if count > 1}

    def _compare_mails(self, folder: Path) -> set[Pair]:
        """The likes of which somebody was told."""
        mails = list(mailbox.Maildir(folder))
        counts = Counter((mail["To"], mail["Subject"], mail.get_payload()) for mail in mails)
        self.doubled |= {f"the mail {mail}" for mail, count in counts.items() if count > 1}
        keys = (mail["Message-ID"].strip("<>").partition("@")[0].split(".", 2) for mail in mails)
        return {(post, name) for kind, post, name in keys if kind == "liked"}

    def _get(self, path: str) -> Any:
        return self._client.get(path).raise_for_status().json()

    def _pages(self, path: str, token: str | None = None) -> Iterator[dict[str, Any]]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        for page in pages(self._client, path, headers=headers):
            yield from page.raise_for_status().json()


def _causes(
    posts: list[dict[str, Any]], authors: dict[str, str], follows: set[Pair], likes: set[Pair]
) -> set[Told]:
    """What each should have been told."""
    replies = {
        (authors[post["in_reply_to"]], "reply", post["username"], post["id"])
        for post in posts
        if post["in_reply_to"] in authors
    }
    told: set[Told] = {(followee, "follow", follower, None) for follower, followee in follows}
    told |= {(authors[post], "like", name, post) for post, name in likes if post in authors}
    return {(name, kind, actor, post) for name, kind, actor, post in told | replies if actor != name}


def are_jobs_done(port: int) -> bool:
    """Whether nothing is waiting, nothing at work and nothing buried, in any tube."""
    with greenstalk.Client(("127.0.0.1", port)) as client:
        stats = client.stats()
    states = ("urgent", "ready", "reserved", "delayed", "buried")
    return not any(stats[f"current-jobs-{state}"] for state in states)
