"""What is there when all is quiet again, against what was promised."""

import mailbox
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import greenstalk
import httpx2

from tests.faults.history import Heard, History, Pair, Told
from tests.pages import pages
from tests.polling import PATIENCE_SECONDS


class Checker:
    """Everything that the people may see, read once; and what of it should not be so.

    `heard` is what streams have brought: of the public timeline, and of the home timelines of some people.
    """

    def __init__(
        self, url: str, tokens: Mapping[str, str], history: History, mails: Path, heard: Mapping[str, Heard]
    ) -> None:
        people = list(tokens)
        self.lost: set[str] = set()
        self.doubled: set[str] = set()
        self.wrong: set[str] = set()
        self._history = history
        self._heard = heard
        self._tokens = tokens
        with httpx2.Client(
            verify=False, base_url=url, timeout=PATIENCE_SECONDS, trust_env=False
        ) as self._client:
            posts = self._compare_posts()
            authors = {post["id"]: post["username"] for post in posts}
            follows = self._compare_follows(people)
            likes = self._compare_likes(people)
            reposts = self._compare_reposts(people)
            self._compare_votes()
            for name in people:
                self._expect_no_deleted(self._pages(f"/posts/home/{name}?limit=100", tokens[name]))
            causes = _causes(posts, authors, follows, {"like": likes, "repost": reposts})
            self._compare_notifications(people, causes)
        self._compare_streams()
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
        self._expect_no_deleted(posts)
        promised = {
            (post.id, text)
            for text, post in self._history.posts.items()
            if post.id and post.id not in self._history.deleting
        }
        self._expect_heard("public", "post", {post["id"] for post in posts})
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
        missing = self._history.lasting(self._history.likes.missing(found))
        self.lost |= {f"the like {pair}" for pair in missing}
        self.wrong |= {f"the like {pair}" for pair in self._history.likes.strange(found)}
        counts = Counter(post for post, _ in found)
        ranking = {one["post_id"]: one["count"] for one in self._pages("/likes/popular?limit=100")}
        self.wrong |= {f"the like of the deleted {post}" for post in self._history.deleted & counts.keys()}
        self.wrong |= {f"the ranking of {post}" for post, _ in (counts - Counter(ranking)).items()}
        self.wrong |= {f"the ranking of {post}" for post, _ in (Counter(ranking) - counts).items()}
        for post in {post.id for post in self._history.stored} | self._history.deleted:
            if (count := self._get(f"/likes/{post}/count")["count"]) != counts[post]:
                self.wrong.add(f"{count} likes of {post}, which {counts[post]} like")
        return found

    def _compare_reposts(self, people: list[str]) -> set[Pair]:
        """The posts and who has reposted them."""
        posts = [post for name in people for post in self._pages(f"/posts/{name}?limit=100")]
        self._expect_no_deleted(posts)
        reposts = [(post["repost_of"]["id"], post["username"]) for post in posts if post.get("repost_of")]
        found, model = set(reposts), self._history.reposts
        self.lost |= {f"the repost {pair}" for pair in self._history.lasting(model.missing(found))}
        self.wrong |= {f"the repost {pair}" for pair in model.strange(found)}
        self.doubled |= {f"the repost {pair}" for pair, count in Counter(reposts).items() if count > 1}
        return found

    def _expect_no_deleted(self, posts: Iterable[dict[str, Any]]) -> None:
        self.wrong |= {f"the deleted {post}" for post in self._history.shown_again(posts)}

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
        found = {name: list(self._pages("/notifications?limit=100", self._tokens[name])) for name in people}
        for name in self._heard.keys() & found.keys():
            self._expect_heard(name, "notification", {one["id"] for one in found[name]})
        counts = Counter(
            (name, one["kind"], one["actor"], one.get("post_id")) for name in people for one in found[name]
        )
        missing = causes - counts.keys() - self._history.dismissing
        self.lost |= {f"the notification {told}" for told in missing}
        self.wrong |= {f"the dismissed notification {told}" for told in self._history.revived(counts)}
        self.wrong |= {f"the notification {told}" for told in counts.keys() - causes}
        self.doubled |= {f"the notification {told}" for told, count in counts.items() if count > 1}

    def _compare_streams(self) -> None:
        """Each event came once, and of a deleted post nothing came after its deletion."""
        self._expect_heard("public", "delete", self._history.deleted)
        for timeline, heard in self._heard.items():
            self.doubled |= {f"{timeline} had twice {event}" for event in heard.doubled()}
            self.wrong |= {f"{timeline} had the deleted {post}" for post in heard.revived()}

    def _expect_heard(self, timeline: str, kind: str, ids: set[str]) -> None:
        self.lost |= {
            f"{timeline} did not have {event}" for event in self._heard[timeline].missing(kind, ids)
        }

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
    posts: list[dict[str, Any]],
    authors: dict[str, str],
    follows: set[Pair],
    reactions: Mapping[str, set[Pair]],
) -> set[Told]:
    """What each should have been told."""
    replies = {
        (authors[post["in_reply_to"]], "reply", post["username"], post["id"])
        for post in posts
        if post["in_reply_to"] in authors
    }
    told: set[Told] = {(followee, "follow", follower, None) for follower, followee in follows}
    told |= {
        (authors[post], kind, name, post)
        for kind, pairs in reactions.items()
        for post, name in pairs
        if post in authors
    }
    return {(name, kind, actor, post) for name, kind, actor, post in told | replies if actor != name}


def are_jobs_done(port: int) -> bool:
    """Whether nothing is waiting, nothing at work and nothing buried, in any tube of this Beanstalkd."""
    with greenstalk.Client(("127.0.0.1", port)) as client:
        stats = client.stats()
    states = ("urgent", "ready", "reserved", "delayed", "buried")
    return not any(stats[f"current-jobs-{state}"] for state in states)
