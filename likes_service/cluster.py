"""A Redis Cluster: which master has a slot, and commands that find it."""

import random
import time
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import redis
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, NoScriptError, TryAgainError
from redis.utils import str_if_bytes

from common.circuit_breaker import CircuitOpen
from common.errors import CannotServe, CredentialsRejected
from common.redis_url import Address
from likes_service.connection import Command, RedisClient

# While a slot moves, its keys are at two nodes: so long, a command waits for those that it needs.
MOVING_SECONDS = 0.5
PAUSE_SECONDS = 0.05
# How often the nodes are asked who has which slot, while that is in doubt; and how long, all together.
DOUBT_SECONDS = 0.1
ASK_SECONDS = 1.0
NO_MASTER = "is a cluster in which no master serves that slot"
OUTAGES = (redis.RedisError, CannotServe, CredentialsRejected, CircuitOpen)
# Their replies say that nothing has run, and where, or when, it may.
REDIRECTIONS = (AskError, TryAgainError)


class Node(RedisClient):
    """One node of a cluster. Raises redis-py's errors for what it says of slots that move."""

    def _error_for(self, exc: redis.RedisError) -> Exception | None:
        if isinstance(exc, ClusterDownError):
            return CannotServe(NO_MASTER)
        return None if isinstance(exc, REDIRECTIONS) else super()._error_for(exc)

    def ask(self, *command: Any) -> Any:
        """The response to a command for a slot that is still on its way here."""
        _, response = self.execute_all([("ASKING",), command])
        if isinstance(response, redis.RedisError):
            raise self._error_for(response) or response
        return response


class ClusterClient:
    """Sends a command to the master that has the slot of its first key. Threads may share it.

    Raises what a RedisClient does. Nothing is sent twice but what a node has refused to run.
    """

    def __init__(self, seeds: Sequence[Address], **options: Any) -> None:
        self._options = options
        self._seeds = list(seeds)
        self._nodes: dict[Address, Node] = {}
        self._slots: dict[int, Address] = {}
        self._lock = Lock()
        self._is_in_doubt = True
        self._asked_at = 0.0

    def execute_command(self, *command: Any) -> Any:
        slot = _slot(command)
        send: Callable[..., Any] = self._master(slot).execute_command
        until = time.monotonic() + MOVING_SECONDS
        while True:
            try:
                return send(*command)
            except MovedError as exc:
                address = self._slots[slot] = self._place(exc, slot)
                self._is_in_doubt = True
                send = self._node(address).execute_command
            except AskError as exc:
                send = self._node(self._place(exc, slot)).ask
            except TryAgainError:
                time.sleep(PAUSE_SECONDS)
                send = self._master(slot).execute_command
            except NoScriptError:
                raise
            except OUTAGES:
                self._is_in_doubt = True
                raise
            if time.monotonic() > until:
                raise CannotServe("is a cluster that moves that slot")

    def execute_all(self, commands: Sequence[Command]) -> list[Any]:
        """The responses to all of them, sent to each node together; an error is in its command's place."""
        places: dict[Node, list[int]] = {}
        for place, command in enumerate(commands):
            places.setdefault(self._master(_slot(command)), []).append(place)
        found: list[Any] = [None] * len(commands)
        for node, here in places.items():
            try:
                responses = node.execute_all([commands[place] for place in here])
            except OUTAGES:
                self._is_in_doubt = True
                raise
            for place, response in zip(here, responses, strict=True):
                is_elsewhere = isinstance(response, REDIRECTIONS)
                found[place] = self.execute_command(*commands[place]) if is_elsewhere else response
        return found

    def masters(self) -> Sequence[RedisClient]:
        self._master(0)
        return [self._node(address) for address in sorted(set(self._slots.values()))]

    def close(self) -> None:
        for node in self._nodes.values():
            node.close()

    def _master(self, slot: int) -> Node:
        # The first to doubt asks. All others go on as before, if they can.
        if self._is_in_doubt and self._lock.acquire(blocking=not self._slots):
            try:
                self._ask_for_slots()
            finally:
                self._lock.release()
        try:
            return self._node(self._slots[slot])
        except KeyError:
            # The node that was asked may not have known all of them yet.
            self._is_in_doubt = True
            raise CannotServe(NO_MASTER) from None

    def _ask_for_slots(self) -> None:
        now = time.monotonic()
        if not self._is_in_doubt or (self._slots and now < self._asked_at + DOUBT_SECONDS):
            return
        self._asked_at = now
        known = list({*self._slots.values(), *self._seeds})
        random.shuffle(known)
        for address in known:
            if time.monotonic() < now + ASK_SECONDS and (found := self._slots_of(address)):
                self._slots = found
                self._is_in_doubt = False
                # A node that is gone for good would keep its connections.
                masters = set(found.values())
                self._nodes = {one: node for one, node in self._nodes.items() if one in masters}
                return
        if not self._slots:
            raise CannotServe("is a cluster of which no node responds")

    def _slots_of(self, address: Address) -> dict[int, Address]:
        """The master of each slot, as this node has it; nothing if it does not respond."""
        try:
            ranges = self._node(address).execute_command("CLUSTER SLOTS")
        except CredentialsRejected:
            raise
        except OUTAGES:
            return {}
        return {
            # A host that the node does not know is its own.
            slot: (str_if_bytes(master[0]) or address[0], int(master[1]))
            for first, last, master, *_ in ranges
            for slot in range(first, last + 1)
        }

    def _place(self, exc: MovedError | AskError, slot: int) -> Address:
        """Where a node says that the slot is; without a host, that is its own."""
        host, port = exc.node_addr
        return host or self._slots[slot][0], port

    def _node(self, address: Address) -> Node:
        if node := self._nodes.get(address):
            return node
        host, port = address
        return self._nodes.setdefault(address, Node(host=host, port=port, **self._options))


def _slot(command: Command) -> int:
    # A script's keys come after how many they are.
    key: str | bytes = command[3 if command[0] in ("EVALSHA", "EVAL") else 1]
    return key_slot(key.encode() if isinstance(key, str) else key)
