"""What was asked for, what the answers promised, and therefore what may be found afterwards."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

Pair = tuple[str, str]

UNAVAILABLE_NOTE = {0, 502, 503, 504}


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


class Model:
    """For every pair what may be true of it: that which was promised last, and that whose answer was lost.

    What was lost stays in doubt for good: whoever has it may hang, and do it long after.
    """

    def __init__(self) -> None:
        self._promised: dict[Pair, bool] = {}
        self._doubtful: defaultdict[Pair, set[bool]] = defaultdict(set)

    def complete(self, pair: Pair, wanted: bool, answer: Answer) -> None:
        if answer.is_success:
            self._promised[pair] = wanted
        else:
            self._doubtful[pair].add(wanted)

    def of(self, pair: Pair) -> set[bool]:
        return {self._promised.get(pair, False)} | self._doubtful.get(pair, set())

    def missing(self, found: set[Pair]) -> set[Pair]:
        return {pair for pair in self._promised if self.of(pair) == {True}} - found

    def strange(self, found: set[Pair]) -> set[Pair]:
        return {pair for pair in found if self.of(pair) == {False}}


@dataclass
class History:
    """Written by the load's one thread, read when that has ended."""

    answers: list[Answer] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
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

    @property
    def acknowledged(self) -> int:
        """How many writes were promised."""
        kinds = {"post", "keyed", "async", "follow", "unfollow", "like", "unlike", "ask", "vote"}
        return sum(answer.is_success and answer.kind in kinds for answer in self.answers)
