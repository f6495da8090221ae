"""The suite under load, with one part after the other killed, hung, frozen, or stopped and started again."""

import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from operator import methodcaller
from threading import Event

from likes_service.workers import MAX_SESSIONS
from tests.faults.checker import Checker, are_jobs_done
from tests.faults.faults import DONE_ALREADY, RECOVERY_SECONDS, REVERTED_BY, Fault
from tests.faults.history import Answer, Heard, History
from tests.faults.load import Load
from tests.faults.processes import Suite
from tests.listener import Listener
from tests.polling import PATIENCE_SECONDS, eventually

Listeners = Mapping[str, Listener]

PEOPLE = [f"user{number}" for number in range(10)]
# Promised are two, on a machine with nothing else to do.
REFUSAL_SECONDS = 6


@dataclass
class FaultEvent:
    """A fault as it happened, in seconds of the monotonic clock."""

    fault: Fault
    injected: float
    reverted: float
    answering: float
    healthy: float
    # For how long requests failed, from the first to the last one.
    reads_failed: float
    writes_failed: float

    def __str__(self) -> str:
        return f"reads failed for {self.reads_failed:.1f} s, writes for {self.writes_failed:.1f} s"

    @property
    def over(self) -> float:
        """From then on, nothing may fail because of it."""
        return min(self.healthy, self.injected + self.fault.outage_seconds)

    def excuses(self, answer: Answer) -> bool:
        during = answer.ended >= self.injected and answer.started <= self.over
        return during and self.fault.excuses(answer)

    def delays_lists(self, at: float) -> bool:
        return self.fault.delays_lists() and self.injected <= at <= self.healthy


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
        late = [
            text for at, text in self.history.late if not any(event.delays_lists(at) for event in self.events)
        ]
        return [*self.history.wrong, *late, *sorted(self.checker.wrong)]

    def longest_failures(self) -> list[tuple[str, int, float, float]]:
        """What was done, how often, and for how long reads and writes failed at most."""
        events: dict[str, list[FaultEvent]] = {}
        for event in self.events:
            events.setdefault(event.fault.title, []).append(event)
        return [
            (
                title, len(alike), max(event.reads_failed for event in alike),
                max(event.writes_failed for event in alike),
            )
            for title, alike in sorted(events.items())
        ]  # fmt: skip

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

    def __init__(self, suite: Suite, seed: int) -> None:
        self._seed = seed
        self._suite = suite
        self._events: list[FaultEvent] = []

    def run(self, faults: Iterable[Fault]) -> Report:
        """Start it all, let the faults happen one after the other, compare, end it all."""
        try:
            started = time.monotonic()
            self._suite.start()
            start_seconds = time.monotonic() - started
            load = Load(self._suite.url, PEOPLE, self._seed, self._suite.pause_seconds)
            with self._listening(load.tokens) as listeners:
                with load:
                    # Before its first event, a stream cannot be resumed.
                    eventually(lambda: all(one.heard() for one in listeners.values()))
                    for fault in faults:
                        self._events.append(self._inject(fault, load.history))
                checker = self._survey(load, listeners)
        finally:
            self._suite.end()
        logs = list(self._suite.logs())
        return Report(self._seed, start_seconds, self._events, load.history, checker, logs)

    @contextmanager
    def _listening(self, tokens: Mapping[str, str]) -> Iterator[Listeners]:
        """Listeners to the public timeline, and to the home timeline of one user, who has notifications."""
        port, user = self._suite.port, PEOPLE[0]
        headers = {"Authorization": f"Bearer {tokens[user]}"}
        with Listener(port, timeline="public") as public, Listener(port, headers) as home:
            yield {"public": public, user: home}

    def _inject(self, fault: Fault, history: History) -> FaultEvent:
        print(fault, end="; ", flush=True)
        parts = [self._suite.parts[name] for name in fault.parts]
        injected = time.monotonic()
        # All at once: a process that is stopped takes a second or two.
        with ThreadPoolExecutor(len(parts)) as threads:
            list(threads.map(methodcaller(fault.verb), parts))
        Event().wait(fault.seconds)
        reverted = time.monotonic()
        for part in parts:
            methodcaller(REVERTED_BY[fault.verb])(part)
        eventually(lambda: self._is_answered(fault.concerned(), reverted, history))
        answering = time.monotonic()
        eventually(self._suite.is_whole)
        healthy = time.monotonic()
        event = FaultEvent(fault, injected, reverted, answering, healthy, *history.failing_seconds(injected))
        print(event, flush=True)
        for part in parts:
            part.repair()
        eventually(self._suite.is_redundant)
        return event

    @staticmethod
    def _is_answered(kinds: set[str], since: float, history: History) -> bool:
        """Whether the last request of each of these kinds, begun since then, succeeded."""
        last = {answer.kind: answer for answer in history.answers[-500:] if answer.started > since}
        return all(kind in last and last[kind].is_success for kind in kinds)

    def _survey(self, load: Load, listeners: Listeners) -> Checker:
        def look() -> Checker:
            mails = self._suite.data / "stores" / "mail"
            heard = {
                timeline: Heard((event.kind, event.data.get("id", "")) for event in listener.heard())
                for timeline, listener in listeners.items()
            }
            return Checker(self._suite.url, load.tokens, load.history, mails, heard)

        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if all(map(are_jobs_done, self._suite.queue_ports)):
                checker = look()
                if checker.is_clean and len(checker.unnotified) <= in_hand(self._events):
                    return checker
            Event().wait(1)
        return look()


def in_hand(events: Iterable[FaultEvent]) -> int:
    """How many mails may have been in hand when their worker died, or the server that they were handed to."""
    mailing = {"likes_notification_worker", "mail"}
    return MAX_SESSIONS * sum(
        event.fault.verb in ("kill", "hang") and not mailing.isdisjoint(event.fault.parts) for event in events
    )
