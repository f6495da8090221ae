"""A cluster that refuses everything while the likes of a single Redis are copied into it."""

from collections.abc import Sequence
from typing import Any

from common.errors import CannotServe
from likes_service.cluster import ClusterClient
from likes_service.connection import Command
from likes_service.keys import FILLING


class FilledCluster(ClusterClient):
    """Once it serves, it is filled for good."""

    _is_filled = False

    def execute_command(self, *command: Any) -> Any:
        self._require_filled()
        return super().execute_command(*command)

    def execute_all(self, commands: Sequence[Command]) -> list[Any]:
        self._require_filled()
        return super().execute_all(commands)

    def _require_filled(self) -> None:
        if not self._is_filled:
            if super().execute_command("EXISTS", FILLING):
                raise CannotServe("is a cluster into which likes are still copied")
            self._is_filled = True
