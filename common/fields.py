"""The types of fields that several services share: usernames, ids, texts."""

import re
import threading
import time
import unicodedata
from datetime import UTC, datetime
from secrets import randbits
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

EXAMPLE_ID = "019eb2a4-7c1e-7d52-9b0e-3f0c5b1a2d4e"

RESERVED_NAMES = {"id", "home", "follow", "unfollow", "popular", "async", "me", "admin"}
# Refused to new accounts only: there may be accounts of these names.
RESERVED_LATER = {
    "block", "unblock", "mute", "unmute", "search", "tags", "stream", "notifications", "counts", "bookmarks",
}  # fmt: skip

CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# Letters and symbols by their category, but blank: Hangul fillers, the Braille cell without dots, an empty
# notehead, blank hieroglyphs.
BLANK_GLYPHS = frozenset("\u115f\u1160\u3164\uffa0\u2800\U0001d159\U00013441\U00013442")
# Default_Ignorable_Code_Point, and noncharacters. A newer Unicode may make letters or emoji of the others.
UNASSIGNED_AND_INVISIBLE = re.compile("[\u2065\ufdd0-\ufdef\ufff0-\ufff8\U000e0000-\U000e0fff]")
CANONICAL_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class RequestBody(BaseModel):
    """A request body; one with unknown fields is refused."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


def is_none(value: object) -> bool:
    """For `exclude_if`, where a response leaves out what does not apply."""
    return value is None


def _not_reserved(name: str) -> str:
    if name in RESERVED_NAMES:
        raise PydanticCustomError("reserved_name", "This name is reserved")
    return name


def _not_reserved_later(name: str) -> str:
    if name in RESERVED_LATER:
        raise PydanticCustomError("reserved_name", "This name is reserved")
    return name


def _one_line(text: str) -> str:
    if "\n" in text or "\t" in text:
        raise PydanticCustomError("several_lines", "One line, without tabs")
    return text


def printable(text: str) -> str:
    if CONTROL_CHARACTERS.search(text):
        raise PydanticCustomError("control_character", "No control characters but newline and tab")
    return text


def visible(text: str) -> str:
    # It looks no further than to the first character that is visible: mostly the first.
    if not any(map(_is_visible, text)):
        raise PydanticCustomError("invisible_text", "Nothing in this text is visible")
    return text


def _is_visible(character: str) -> bool:
    """Whether it leaves a mark by itself: space, control, format and combining characters do not."""
    if character in BLANK_GLYPHS:
        return False
    category = unicodedata.category(character)
    if category == "Cn":
        is_noncharacter = ord(character) & 0xFFFE == 0xFFFE
        return not is_noncharacter and not UNASSIGNED_AND_INVISIBLE.match(character)
    return category[0] not in "ZCM"


def _canonical(value: object) -> object:
    if isinstance(value, str) and not CANONICAL_UUID.fullmatch(value):
        raise PydanticCustomError("malformed_id", f"An id looks like {EXAMPLE_ID}")
    return value


# In responses, where nothing is left to check.
KnownUsername = Annotated[str, Field(examples=["alice"])]
KnownId = Annotated[UUID, Field(examples=[EXAMPLE_ID])]

# Alice and alice are one account, everywhere: lower-cased here and nowhere else.
Username = Annotated[
    KnownUsername,
    StringConstraints(to_lower=True, min_length=3, max_length=30, pattern=r"^[A-Za-z0-9_]+$"),
    AfterValidator(_not_reserved),
]

NewUsername = Annotated[Username, AfterValidator(_not_reserved_later)]

# pydantic alone also accepts 32 bare digits, braces and urn:uuid:.
Id = Annotated[KnownId, BeforeValidator(_canonical)]

# A dot-atom at a domain (RFC 5321, §4.1.2): what a header and an SMTP command carry as it is, unquoted.
_ATOM = "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
EMAIL = rf"^{_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})*$"
MAX_LOCAL_PART = 64


def _mailable(address: str) -> str:
    local_part = address.rpartition("@")[0]
    if len(local_part) > MAX_LOCAL_PART:
        raise PydanticCustomError("local_part_too_long", "At most 64 characters before the @")
    # RFC 2047: a mail program decodes what begins so, perhaps to other addresses.
    if "=?" in local_part:
        raise PydanticCustomError("encoded_word", "No =? before the @")
    return address


Email = Annotated[str, StringConstraints(max_length=254, pattern=EMAIL), AfterValidator(_mailable)]

# For any text that users write: after the bounds of its length, so that their error counts characters.
PRINTABLE = AfterValidator(printable)
ONE_LINE = AfterValidator(_one_line)
# For a new text that is required. Not for one that is read back: it may be older than this rule.
VISIBLE = AfterValidator(visible)


class _Clock:
    """The time in the latest id, so that the ids of one process always increase."""

    lock = threading.Lock()
    last = 0


def new_id() -> UUID:
    """A UUIDv7: 48 bits of milliseconds, 12 of their fraction, 62 random (RFC 9562, §5.7, §6.2)."""
    with _Clock.lock:
        ticks = max(time.time_ns() * 4096 // 1_000_000, _Clock.last + 1)
        _Clock.last = ticks
    milliseconds, fraction = divmod(ticks, 4096)
    return UUID(int=milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | randbits(62))


def time_of(made: UUID) -> datetime:
    """When an id of `new_id` was made, to the millisecond."""
    return datetime.fromtimestamp((made.int >> 80) / 1000, UTC)


def first_id(at: datetime) -> UUID:
    """No id that `new_id` makes at this time, or later, is less."""
    return UUID(int=int(at.timestamp() * 1000) << 80)
