"""The types of fields that several services share: usernames, ids, texts."""

import re
import threading
import time
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from secrets import randbits
from typing import Annotated, Any
from uuid import UUID

import regex
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StringConstraints,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, PydanticKnownError, core_schema

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
# What a reader takes for one character: a flag, a family, a letter with its marks (UAX 29).
GRAPHEME_CLUSTER = regex.compile(r"\X")
# As many as almost all characters have. Only emoji that are joined have more, up to 41 a family of four: each
# counts as this many, so that as many families as letters fit into a text.
BYTES_PER_CHARACTER = 14
JOINED_EMOJI = regex.compile(r"(?:\p{ExtPict}[\p{EMod}\uFE0F]?\u200D){1,3}\p{ExtPict}[\p{EMod}\uFE0F]?")
MIN_BYTES = 4096
WHOLE_NUMBER = re.compile(r"-?[0-9]+")
CANONICAL_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class RequestBody(BaseModel):
    """A request body; one with unknown fields is refused."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


def _require_digits(value: object) -> object:
    """Pydantic also reads numbers as Python writes them: 1_000, +1, 1.0."""
    if isinstance(value, str) and not WHOLE_NUMBER.fullmatch(value):
        raise PydanticKnownError("int_parsing")
    return value


# A number in a query.
WholeNumber = Annotated[int, BeforeValidator(_require_digits)]


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


@dataclass(frozen=True)
class Text:
    """The bounds of a text that users write: `Annotated[str, Text(280)]`. It is trimmed, and printable.

    `max_length` and `min_length` count characters as readers do: grapheme clusters. A cluster has any number
    of marks, so that bytes are bounded, too.
    """

    max_length: int
    min_length: int = 1

    @property
    def max_bytes(self) -> int:
        return max(BYTES_PER_CHARACTER * self.max_length, MIN_BYTES)

    def check(self, text: str) -> str:
        # A cluster has one code point at least: most texts need no count.
        if len(text) > self.max_length:
            if has_more_clusters(text, self.max_length):
                raise PydanticKnownError("string_too_long", {"max_length": self.max_length})
            if count_bytes(text) > self.max_bytes:
                context = {"max_bytes": self.max_bytes}
                raise PydanticCustomError("too_many_bytes", "At most {max_bytes} bytes of UTF-8", context)
        return printable(text)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        trimmed = core_schema.str_schema(strip_whitespace=True, min_length=self.min_length)
        return core_schema.no_info_after_validator_function(self.check, trimmed)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        # JSON Schema counts code points: no valid text has more of them than bytes.
        limits = f"At most {self.max_length} characters as readers count them, and {self.max_bytes} bytes."
        return {"description": limits} | handler(schema) | {"maxLength": self.max_bytes}


def has_more_clusters(text: str, count: int) -> bool:
    """Whether a text has more grapheme clusters; it looks no further than to the first one too many."""
    return next(islice(GRAPHEME_CLUSTER.finditer(text), count, None), None) is not None


def count_bytes(text: str) -> int:
    """The bytes of a text in UTF-8, as its bounds count them."""
    rest, joined = JOINED_EMOJI.subn("", text)
    counted: int = joined * BYTES_PER_CHARACTER + len(rest.encode())
    return counted


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

# In `Text`, too: after the bounds of its length, so that their error counts characters.
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


def later_id(made: UUID, newest: UUID | None) -> UUID:
    """This id, or the one that follows the newest, which a clock that is ahead may have made."""
    return made if newest is None or newest < made else UUID(int=newest.int + 1)


def time_of(made: UUID) -> datetime:
    """When an id of `new_id` was made, to the millisecond."""
    return datetime.fromtimestamp((made.int >> 80) / 1000, UTC)


def first_id(at: datetime) -> UUID:
    """No id that `new_id` makes at this time, or later, is less."""
    return UUID(int=int(at.timestamp() * 1000) << 80)
