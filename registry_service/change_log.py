"""Which instances have changed since a version."""

from collections import OrderedDict
from itertools import takewhile

# A client that lacks more than so many gets all instances instead.
MAX_CHANGES = 10_000


class ChangeLog:
    """The version at which each instance changed last, whether or not it is still there."""

    def __init__(self) -> None:
        self._versions: OrderedDict[str, int] = OrderedDict()
        self._forgotten_version = 0

    def record(self, instance_id: str, version: int) -> None:
        """That this instance is another one since this version, the newest."""
        self._versions[instance_id] = version
        self._versions.move_to_end(instance_id)
        if len(self._versions) > MAX_CHANGES:
            _, self._forgotten_version = self._versions.popitem(last=False)

    def since(self, version: int) -> list[str] | None:
        """The ids of those that changed after this version, in order; None if that is too long ago."""
        if version < self._forgotten_version:
            return None
        newest_first = reversed(self._versions.items())
        return [one for one, changed in takewhile(lambda item: item[1] > version, newest_first)][::-1]
