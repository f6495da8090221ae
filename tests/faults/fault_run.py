"""The suite under load, with one part after the other killed, hung, frozen, or stopped and started again."""

import random
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Literal

from likes_service.workers import MAX_SESSIONS
from tests.faults.checker import Checker, are_jobs_done
from tests.faults.history import Answer, Heard, History
from tests.faults.load import Load
from tests.faults.processes import SERVICES, WORKERS, Suite
from tests.listener import Listener
from tests.polling import PATIENCE_SECONDS, eventually

Listeners = Mapping[str, Listener]

PEOPLE = [f"user{number}" for number in range(10)]
# How long a part may stay unused after it is back; that it has to start first comes on top.
RECOVERY_SECONDS = 5
# Promised are two, on a machine with nothing else to do.
REFUSAL_SECONDS = 6

# What has to be there for each kind of request; the gateway, for all of them.
NEEDS = {
    "post": {"timelines", "postgres"},
    "keyed": {"timelines", "postgres"},
    "async": {"timelines", "beanstalkd"},
    "read": {"timelines", "postgres"},
    "timeline": {"timelines", "postgres"},
    "public": {"timelines", "postgres"},
    "home": {"timelines", "users", "postgres"},
    "follow": {"users", "postgres"},
    "unfollow": {"users", "postgres"},
    "profile": {"users", "postgres"},
    "followees": {"users", "postgres"},
    "like": {"likes", "redis"},
    "unlike": {"likes", "redis"},
    "liked": {"likes", "redis"},
    "popular": {"likes", "redis"},
    "repost": {"timelines", "postgres"},
    "unrepost": {"timelines", "postgres"},
    "delete": {"timelines", "postgres"},
    "inbox": {"timelines", "users", "postgres"},
    "dismiss": {"timelines", "postgres"},
    "ask": {"polls", "dynamodb"},
    "vote": {"polls", "dynamodb"},
}
# A POST that was under way may have had its effect: the gateway must not send it again.
NEVER_TWICE = {"post", "async", "follow", "unfollow", "like", "ask", "vote", "repost"}
# What these are told where it has been done already: by themselves before an answer was lost, or by another.
DONE_ALREADY = {"vote": 409, "delete": 404, "dismiss": 404}
# Nobody may have something to delete or to dismiss now.
SELDOM = {"delete", "dismiss", "unrepost"}

REVERTED_BY = {
    "kill": "start",
    "hang": "resume",
    "stop": "start",
    "freeze": "thaw",
    "defer": "accept",
    "demote": "promote",
}


@dataclass(frozen=True)
class Fault:
    """Something that is done to some parts at once, and undone some seconds later."""

    verb: Literal["kill", "hang", "stop", "freeze", "defer", "demote"]
    processes: tuple[str, ...]
    seconds: float = 2

    def __str__(self) -> str:
        return f"{self.verb} {' and '.join(self.processes)} for {self.seconds:g} s"

    def excuses(self, answer: Answer) -> bool:
        """Whether a request may have failed because of it."""
        needs = NEEDS[answer.kind] | {"gateway"}
        if needs & self._away:
            return answer.is_away
        is_cut_off = self.verb != "stop" and answer.kind in NEVER_TWICE and needs & self._maimed
        return bool(is_cut_off) and answer.status in (502, 504)

    def concerned(self) -> set[str]:
        """The kinds of requests that cannot be answered meanwhile, and will soon be tried again."""
        concerned = {kind for kind, needs in NEEDS.items() if (needs | {"gateway"}) & self._away}
        return concerned - SELDOM

    @property
    def _away(self) -> set[str]:
        whole = {name for name in SERVICES if {f"{name}.1", f"{name}.2"} <= set(self.processes)}
        return whole | set(self.processes)

    @property
    def _maimed(self) -> set[str]:
        return {process.partition(".")[0] for process in self.processes}


def _both(service: str) -> tuple[str, str]:
    return f"{service}.1", f"{service}.2"


ROLLING_RESTART = [Fault("stop", tuple(f"{service}.{n}" for service in SERVICES), 0) for n in (1, 2)]
QUICK = [
    *(Fault("kill", (f"{service}.1",)) for service in SERVICES),
    *(Fault("kill", _both(service)) for service in ("timelines", "likes")),
    Fault("hang", ("users.2",), 7),
    Fault("hang", ("timelines.2",), 7),
    Fault("kill", ("registry",)),
    Fault("hang", ("registry",), 4),
    Fault("kill", ("gateway",)),
    *(Fault("kill", (worker,), 1) for worker in WORKERS),
    Fault("stop", tuple(WORKERS), 0),
    Fault("hang", ("timelines_worker",), 4),
    *(Fault("kill", (store,)) for store in ("postgres", "redis", "beanstalkd", "mail")),
    *(Fault("hang", (store,), 4) for store in ("postgres", "redis", "beanstalkd", "dynamodb", "mail")),
    Fault("defer", ("mail",), 7),
    Fault("freeze", ("postgres",), 4),
    Fault("demote", ("redis",), 4),
    # The stand-in keeps nothing over a kill.
    Fault("stop", ("dynamodb",)),
    *ROLLING_RESTART,
]


@dataclass
class FaultEvent:
    """A fault as it happened, in seconds of the monotonic clock."""

    fault: Fault
    injected: float
    reverted: float
    answering: float
    healthy: float

    def excuses(self, answer: Answer) -> bool:
        during = answer.ended >= self.injected and answer.started <= self.healthy
        return during and self.fault.excuses(answer)


@dataclass
class Report:
    """Everything that came of it."""

    seed: int
    start_seconds: float
    events: list[FaultEvent]
    history: History
    checker: Checker
    logs: list[tuple[str, str]]

    def failures(self, events: Iterable[FaultEvent] | None = None) -> list[str]:
        """The requests that failed although nothing that they need was away."""
        events = self.events if events is None else events
        return [
            f"{answer.kind}: {answer.status} after {answer.seconds:.1f} s, {self._when(answer)}"
            for answer in self.history.answers
            if not answer.is_success
            and answer.status != DONE_ALREADY.get(answer.kind)
            and not any(one.excuses(answer) for one in events)
        ]

    @property
    def slow_refusals(self) -> list[str]:
        """The requests that took too long to learn that something is away."""
        slow = [one for one in self.history.answers if one.status == 503 and one.seconds > REFUSAL_SECONDS]
        return [f"{one.kind}: 503 after {one.seconds:.1f} s, {self._when(one)}" for one in slow]

    @property
    def bugs(self) -> list[str]:
        """The processes that met what they did not expect."""
        return [f"a traceback in the log of {name}" for name, said in self.logs if "Traceback" in said]

    @property
    def unnotified(self) -> list[str]:
        """The likes of which nobody was told, when there are more than may have been in hand of who died."""
        likes = sorted(self.checker.unnotified)
        return [f"the mail about {like}" for like in likes] if len(likes) > in_hand(self.events) else []

    @property
    def longest_recovery(self) -> float:
        return max((event.answering - event.reverted for event in self.events), default=0)

    @property
    def slow_recoveries(self) -> list[str]:
        """The faults after which the suite took longer, by more than that, than its first start took."""
        most = RECOVERY_SECONDS + self.start_seconds
        return [
            f"{event.answering - event.reverted:.1f} s after the end of: {event.fault}"
            for event in self.events
            if event.answering - event.reverted > most
        ]

    @property
    def wrong(self) -> list[str]:
        return [*self.history.wrong, *sorted(self.checker.wrong)]

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: {len(self.events)} faults, {len(self.history.answers)} requests, "
            f"{self.history.acknowledged} acknowledged writes, {len(self.checker.lost)} lost, "
            f"{len(self.checker.doubled)} doubled, {len(self.wrong)} wrong answers, "
            f"{len(self.failures())} failures without a cause, "
            f"longest recovery {self.longest_recovery:.1f} s (a start: {self.start_seconds:.1f} s)"
        )

    def _when(self, answer: Answer) -> str:
        last = [event for event in self.events if event.injected <= answer.ended][-1:]
        return (
            f"{answer.ended - last[0].injected:.1f} s after: {last[0].fault}" if last else "before any fault"
        )


class FaultRun:
    """One suite, its people, and what is done to it."""

    def __init__(self, data: Path, seed: int) -> None:
        self._seed = seed
        self._suite = Suite(data)
        self._events: list[FaultEvent] = []

    def run(self, faults: Iterable[Fault]) -> Report:
        """Start it all, let the faults happen one after the other, compare, end it all."""
        try:
            started = time.monotonic()
            self._suite.start()
            start_seconds = time.monotonic() - started
            load = Load(self._suite.url, PEOPLE, self._seed)
            with self._listening(load.tokens) as listeners:
                with load:
                    # Before its first event, a stream cannot be resumed.
                    eventually(lambda: all(one.heard() for one in listeners.values()))
                    for fault in faults:
                        self._events.append(self._inject(fault, load.history))
                checker = self._survey(load.history, listeners)
        finally:
            self._suite.end()
        logs = list(self._suite.logs())
        return Report(self._seed, start_seconds, self._events, load.history, checker, logs)

    @contextmanager
    def _listening(self, tokens: Mapping[str, str]) -> Iterator[Listeners]:
        """Listeners to the public timeline, and to the home timeline of one user, who has notifications."""
        port, user = self._suite.ports["gateway"], PEOPLE[0]
        headers = {"Authorization": f"Bearer {tokens[user]}"}
        with Listener(port, timeline="public") as public, Listener(port, headers) as home:
            yield {"public": public, user: home}

    def _inject(self, fault: Fault, history: History) -> FaultEvent:
        print(fault, flush=True)
        processes = [self._suite.processes[name] for name in fault.processes]
        injected = time.monotonic()
        for process in processes:
            getattr(process, fault.verb)()
        Event().wait(fault.seconds)
        reverted = time.monotonic()
        for process in processes:
            getattr(process, REVERTED_BY[fault.verb])()
        eventually(lambda: self._is_answered(fault.concerned(), reverted, history))
        answering = time.monotonic()
        eventually(self._suite.is_whole)
        return FaultEvent(fault, injected, reverted, answering, time.monotonic())

    @staticmethod
    def _is_answered(kinds: set[str], since: float, history: History) -> bool:
        """Whether the last request of each of these kinds, begun since then, succeeded."""
        last = {answer.kind: answer for answer in history.answers[-500:] if answer.started > since}
        return all(kind in last and last[kind].is_success for kind in kinds)

    def _survey(self, history: History, listeners: Listeners) -> Checker:
        def look() -> Checker:
            mails = self._suite.data / "stores" / "mail"
            heard = {
                timeline: Heard((event.kind, event.data.get("id", "")) for event in listener.heard())
                for timeline, listener in listeners.items()
            }
            return Checker(self._suite.url, PEOPLE, history, mails, heard)

        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if are_jobs_done(self._suite.ports["beanstalkd"]):
                checker = look()
                if checker.is_clean and len(checker.unnotified) <= in_hand(self._events):
                    return checker
            Event().wait(1)
        return look()


def in_hand(events: Iterable[FaultEvent]) -> int:
    """How many mails may have been in hand when their worker died, or the server that they were handed to."""
    mailing = {"likes_notification_worker", "mail"}
    return MAX_SESSIONS * sum(
        event.fault.verb in ("kill", "hang") and not mailing.isdisjoint(event.fault.processes)
        for event in events
    )


def shuffled(seed: int) -> Iterator[Fault]:
    """The faults for ever, each time in another order, each time of another length."""
    rng = random.Random(seed)
    while True:
        for fault in rng.sample(QUICK, len(QUICK)):
            yield Fault(fault.verb, fault.processes, round(fault.seconds * rng.uniform(0.2, 1.5), 1))
