"""What was asked for, what the answers promised, and therefore what may be found afterwards."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

Pair = tuple[str, str]
# The recipient, the kind, the actor, the post.
Told = tuple[str, str, str, str | None]

UNAVAILABLE_NOTE = {0, 502, 503, 504}
WRITES = {
    "post", "keyed", "async", "follow", "unfollow", "like", "unlike", "ask", "vote", "repost", "unrepost",
    "delete", "dismiss",
}  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """One request's end; its status is 0 when there was no answer."""

    kind: str
    started: float
    ended: float
    status: int
    body: Any = None

    @property
    def seconds(self) -> float:
        return self.ended - self.started

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def is_away(self) -> bool:
        """Whether it says, as it may while something is away, that it was not done or not told."""
        return self.status in UNAVAILABLE_NOTE


@dataclass
class Written:
    """A post, and the id under which it was promised, if it was."""

    author: str
    id: str = ""
    # When it had been promised, in seconds of the monotonic clock.
    promised: float = 0


class Model:
    """For every pair what may be true of it: that which was promised last, and that whose answer was lost.

    What was lost stays in doubt for good: whoever has it may hang, and do it long after.
    """

    def __init__(self) -> None:
        self._promised: dict[Pair, bool] = {}
        self._doubtful: defaultdict[Pair, set[bool]] = defaultdict(set)
        self._asked: Counter[Pair] = Counter()

    def complete(self, pair: Pair, wanted: bool, answer: Answer) -> None:
        self._asked[pair] += 1
        if answer.is_success:
            self._promised[pair] = wanted
        else:
            self._doubtful[pair].add(wanted)

    def of(self, pair: Pair) -> set[bool]:
        return {self._promised.get(pair, False)} | self._doubtful.get(pair, set())

    def changed_once(self, pair: Pair) -> bool:
        """Whether it was asked for once at most: what came of it cannot come again."""
        return self._asked[pair] <= 1

    def missing(self, found: set[Pair]) -> set[Pair]:
        return {pair for pair in self._promised if self.of(pair) == {True}} - found

    def strange(self, found: set[Pair]) -> set[Pair]:
        return {pair for pair in found if self.of(pair) == {False}}


@dataclass
class History:
    """Written by the load's one thread, read when that has ended."""

    answers: list[Answer] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    # Reads of a user's own likes that do not show the last change.
    late: list[tuple[float, str]] = field(default_factory=list)
    # By their texts, of which no two are the same.
    posts: dict[str, Written] = field(default_factory=dict)
    # Those of them that can be read, in the order of their answers.
    stored: list[Written] = field(default_factory=list)
    follows: Model = field(default_factory=Model)
    likes: Model = field(default_factory=Model)
    polls: list[str] = field(default_factory=list)
    votes: dict[Pair, int] = field(default_factory=dict)
    # Votes that nobody knows of whether they were counted.
    lost_votes: set[Pair] = field(default_factory=set)
    reposts: Model = field(default_factory=Model)
    # Posts that their authors will delete, those that they wanted to delete, and those that are deleted.
    doomed: list[Written] = field(default_factory=list)
    deleting: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    # Likewise of notifications.
    dismissing: set[Told] = field(default_factory=set)
    dismissed: set[Told] = field(default_factory=set)

    @property
    def acknowledged(self) -> int:
        """How many writes were promised."""
        return sum(answer.is_success and answer.kind in WRITES for answer in self.answers)

    def failing_seconds(self, since: float) -> tuple[float, float]:
        """From the first request since then that failed to the last one: of reads, and of writes."""
        failed = [answer for answer in self.answers if answer.ended >= since and answer.is_away]
        reads = [answer for answer in failed if answer.kind not in WRITES]
        writes = [answer for answer in failed if answer.kind in WRITES]
        return _span(reads, since), _span(writes, since)

    def lasting(self, pairs: Iterable[Pair]) -> set[Pair]:
        """Those that are about a post of which nobody wanted to delete it."""
        return {pair for pair in pairs if pair[0] not in self.deleting}

    def shown_again(self, posts: Iterable[dict[str, Any]]) -> set[str]:
        """The deleted posts that are among these, or reposted by them."""
        shown = {post["id"] for each in posts for post in (each, each.get("repost_of") or each)}
        return self.deleted & shown

    def revived(self, told: Iterable[Told]) -> set[Told]:
        """The notifications that were dismissed, and are there again without a cause of its own."""
        return {one for one in self.dismissed.intersection(told) if self._was_caused_once(one)}

    def _was_caused_once(self, told: Told) -> bool:
        recipient, kind, actor, post = told
        match kind:
            case "follow":
                return self.follows.changed_once((actor, recipient))
            case "like" | "repost":
                model = self.likes if kind == "like" else self.reposts
                return model.changed_once((post or "", actor))
            case _:
                return True


def _span(failed: Sequence[Answer], since: float) -> float:
    first = min((max(answer.started, since) for answer in failed), default=0.0)
    return max((answer.ended for answer in failed), default=0.0) - first


class Heard:
    """What a stream has brought: of each event its kind, and the id of what it is about, in their order."""

    def __init__(self, events: Iterable[Pair]) -> None:
        self._events: Sequence[Pair] = list(events)

    def missing(self, kind: str, ids: Iterable[str]) -> set[Pair]:
        """What should have come; all of it where the stream itself says that something is missing."""
        expected = {(kind, one) for one in ids}
        is_whole = all(heard != "reset" for heard, _ in self._events)
        return expected.difference(self._events) if is_whole else expected

    def doubled(self) -> set[Pair]:
        return {event for event, count in Counter(self._events).items() if count > 1}

    def revived(self) -> set[str]:
        """The posts that came after their deletion."""
        deleted: set[str] = set()
        revived: set[str] = set()
        for kind, one in self._events:
            if kind == "delete":
                deleted.add(one)
            elif one in deleted:
                revived.add(one)
        return revived
