"""Names, ids and texts."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise
from time import time
from typing import Annotated
from uuid import RFC_4122, UUID

import pytest
from pydantic import TypeAdapter, ValidationError

from common import fields
from common.fields import (
    PRINTABLE,
    RESERVED_NAMES,
    VISIBLE,
    Email,
    Id,
    RequestBody,
    Text,
    Username,
    WholeNumber,
    first_id,
    new_id,
    time_of,
)

names: TypeAdapter[str] = TypeAdapter(Username)
ids = TypeAdapter(Id)
addresses: TypeAdapter[str] = TypeAdapter(Email)
whole_numbers: TypeAdapter[int] = TypeAdapter(WholeNumber)
texts: TypeAdapter[str] = TypeAdapter(Annotated[str, PRINTABLE])
visible_texts: TypeAdapter[str] = TypeAdapter(Annotated[str, VISIBLE])

# §A.6
RFC_9562_EXAMPLE = datetime(2022, 2, 22, 19, 22, 22, tzinfo=UTC)


def test_an_id_is_a_uuid_of_version_7_and_of_now() -> None:
    made = new_id()

    assert (made.version, made.variant) == (7, RFC_4122)
    assert abs((made.int >> 80) / 1000 - time()) < 1


def test_an_id_says_when_it_was_made() -> None:
    assert time_of(UUID("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")) == RFC_9562_EXAMPLE


def test_the_first_id_of_a_time_has_nothing_but_the_time() -> None:
    assert first_id(RFC_9562_EXAMPLE) == UUID("017f22e2-79b0-0000-0000-000000000000")


def test_ids_go_up_also_when_many_are_made_at_once() -> None:
    made = [new_id() for _ in range(1000)]

    assert all(before < after for before, after in pairwise(made))


def test_ids_made_by_many_threads_all_differ() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: new_id(), range(1000)))

    assert len(set(made)) == 1000


@pytest.mark.parametrize("name", ["alice", "a_1", "x" * 30, "___"])
def test_a_name_is_taken_as_it_is(name: str) -> None:
    assert names.validate_python(name) == name


def test_a_name_becomes_lower_case() -> None:
    assert names.validate_python("Alice_B") == "alice_b"


@pytest.mark.parametrize(
    "name",
    [
        "ab",
        "x" * 31,
        "a b c",
        "a-b",
        "ålice",
        "alice\n",
        "\x00abc",
        "ADMIN",
        "\u212aelvin",
        "İbrahim",
        123,
        None,
    ],
)
def test_anything_else_is_no_name(name: object) -> None:
    with pytest.raises(ValidationError):
        names.validate_python(name)


@pytest.mark.parametrize("name", sorted(RESERVED_NAMES))
def test_names_that_are_paths_are_reserved(name: str) -> None:
    for written in (name, name.upper()):
        with pytest.raises(ValidationError) as refused:
            names.validate_python(written)
        assert "string_too_short" in str(refused.value) or "reserved_name" in str(refused.value)


CANONICAL = "019eb2a4-7c1e-7d52-9b0e-3f0c5b1a2d4e"


@pytest.mark.parametrize("text", [CANONICAL, CANONICAL.upper()])
def test_an_id_is_written_with_hyphens(text: str) -> None:
    assert str(ids.validate_python(text)) == CANONICAL


@pytest.mark.parametrize(
    "text",
    ["", "1", CANONICAL.replace("-", ""), f"{{{CANONICAL}}}", f"urn:uuid:{CANONICAL}", CANONICAL + "\n"],
)
def test_other_ways_to_write_an_id_are_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        ids.validate_python(text)


def test_ids_go_up_when_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = new_id()
    monkeypatch.setattr(fields.time, "time_ns", lambda: 1)

    assert new_id() > before


@pytest.mark.parametrize("text", ["", "a\n\tb", "😀", "\u00a0", "ü" * 1000])
def test_what_people_write_may_have_newlines_and_tabs(text: str) -> None:
    assert texts.validate_python(text) == text


@pytest.mark.parametrize("text", ["\x00", "a\rb", "\x0b", "\x1b[31m", "\x7f", "\x85"])
def test_what_people_write_has_no_other_control_characters(text: str) -> None:
    with pytest.raises(ValidationError):
        texts.validate_python(text)


FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"
LARGEST_FAMILY = "\u200d".join(f"{person}\U0001f3fd" for person in "\U0001f468\U0001f469\U0001f467\U0001f466")
CHARACTERS = [
    "x",
    "ü",
    "字",
    "e\u0301",
    "\U0001f1f3\U0001f1f4",
    "1\ufe0f\u20e3",
    "ที่",
    "한",
    FAMILY,
    LARGEST_FAMILY,
]


@pytest.mark.parametrize("character", CHARACTERS, ids=ascii)
@pytest.mark.parametrize("limit", [50, 280, 500])
def test_a_limit_counts_characters_as_readers_do(character: str, limit: int) -> None:
    limited: TypeAdapter[str] = TypeAdapter(Annotated[str, Text(limit)])

    assert limited.validate_python(character * limit) == character * limit
    with pytest.raises(ValidationError, match="string_too_long"):
        limited.validate_python(character * (limit + 1))


@pytest.mark.parametrize(("limit", "most"), [(50, 4096), (280, 4096), (500, 7000)])
def test_a_text_has_only_so_many_bytes(limit: int, most: int) -> None:
    limited: TypeAdapter[str] = TypeAdapter(Annotated[str, Text(limit)])
    longest = "xx" + (most // 2 - 1) * "\u0301"

    assert limited.validate_python(longest) == longest
    for text in (longest + "\u0301", "\U0001f468\u200d" * 8000):
        with pytest.raises(ValidationError, match="too_many_bytes"):
            limited.validate_python(text)


def test_spaces_around_a_text_do_not_count() -> None:
    limited: TypeAdapter[str] = TypeAdapter(Annotated[str, Text(5)])

    assert limited.validate_python(" \n" * 9000 + "Hello\t") == "Hello"


@pytest.mark.parametrize("text", ["", "  ", "a\x00b", "a" + "\x00" * 9])
def test_a_text_is_neither_empty_nor_unprintable(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Annotated[str, Text(5)]).validate_python(text)


def test_a_documented_limit_refuses_no_text_that_is_valid() -> None:
    schema = TypeAdapter(Annotated[str, Text(280)]).json_schema()

    assert schema["maxLength"] >= max(len(text) for text in (280 * LARGEST_FAMILY, "x" + 2047 * "\u0301"))
    assert "280" in schema["description"]


# DerivedCoreProperties.txt, Default_Ignorable_Code_Point.
DEFAULT_IGNORABLE = (
    *(0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), *range(0x200B, 0x2010)),
    *(*range(0x202A, 0x202F), *range(0x2060, 0x2070), 0x3164, *range(0xFE00, 0xFE10), 0xFEFF, 0xFFA0),
    *(*range(0xFFF0, 0xFFF9), *range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B), *range(0xE0000, 0xE1000)),
)


@pytest.mark.parametrize(
    "character",
    [
        *"\t\n\x7f\x85\xa0\u1680\u2003\u2028\u202f\u205f\u3000",
        *"\u0301\u0e34\u093f\u20e3\u20dd",
        *"\u2800\U0001d159\U00013441",
        *"\ue000\ufdd0\uffff\U0010ffff",
    ],
    ids=ascii,
)
def test_a_text_of_what_is_not_visible_is_none(character: str) -> None:
    for text in (character, 280 * character, f"{character}\u200d\ufe0f {character}"):
        with pytest.raises(ValidationError, match="invisible_text"):
            visible_texts.validate_python(text)


def test_a_text_of_what_unicode_lets_a_font_ignore_is_none() -> None:
    for character in map(chr, DEFAULT_IGNORABLE):
        with pytest.raises(ValidationError, match="invisible_text"):
            visible_texts.validate_python(character)


@pytest.mark.parametrize(
    "text",
    [
        *("a", ".", "0", "_", "\u200ba", "e\u0301"),
        *("\u2764\ufe0f", "1\ufe0f\u20e3", "\U0001f468\u200d\U0001f469\u200d\U0001f467"),
        "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        *("हिन्दी", "ที่นี่", "தமிழ்", "한", "ᄒ", "\u05e9\u05b8", "مرحبا", "字", "⠁", "€", "\u200f\u05d0"),
    ],
    ids=ascii,
)
def test_one_visible_character_makes_a_text(text: str) -> None:
    assert visible_texts.validate_python(text) == text


@pytest.mark.parametrize("text", ["\U0001fae8", "\U0001fadf", "\U0001fffd", "\U00031350", "\U00011f02"])
def test_a_character_newer_than_this_pythons_unicode_counts_as_visible(text: str) -> None:
    assert visible_texts.validate_python(text) == text


@pytest.mark.parametrize(
    "address",
    [
        "alice@example.com",
        "Alice.B+news@sub.example.co",
        "o'x+y=/?^_`{|}~-!#$%&*@example.com",
        "a" * 64 + "@example.com",
        "a@" + "b" * 63,
        "alice@xn--bcher-kva.example",
    ],
)
def test_an_address_is_taken_as_it_is(address: str) -> None:
    assert addresses.validate_python(address) == address


@pytest.mark.parametrize(
    "address",
    [
        "=?utf-8?q?victim=40other.example=2C?=@example.com",
        "=?UTF-8?B?ZXZlQG90aGVyLmV4YW1wbGUs?=@example.com",
        "x.=?iso-8859-1?Q?=3C?=.y@example.com",
        "=?utf-8?q?open@example.com",
        "alice@=?utf-8?q?example?=.com",
    ],
)
def test_an_address_has_nothing_that_a_mail_program_decodes(address: str) -> None:
    with pytest.raises(ValidationError):
        addresses.validate_python(address)


@pytest.mark.parametrize(
    "address",
    [
        *(
            f"a{character}b@example.com"
            for character in '\r\n\0\t\x7f\x85 \u00a0<>()[],;:\\"@é\u202e\u2028\ufeff'
        ),
        *(f"alice@exam{character}ple.com" for character in '\r\n\0 <>(),;:"_é\u202e'),
        "alice@example.com\n",
        " alice@example.com",
        '"alice"@example.com',
        '"a b"@example.com',
        ".alice@example.com",
        "alice.@example.com",
        "al..ice@example.com",
        "alice@example.com.",
        "alice@.example.com",
        "alice@-example.com",
        "alice@[127.0.0.1]",
        "Alice <alice@example.com>",
        "a" * 65 + "@example.com",
        "a@" + "b" * 64,
        "a@" + ".".join(["b" * 60] * 5),
        "@example.com",
        "alice@",
        "",
    ],
)
def test_an_address_has_nothing_that_a_header_or_a_command_cannot_carry(address: str) -> None:
    with pytest.raises(ValidationError):
        addresses.validate_python(address)


class Note(RequestBody):
    stars: int = 0


def test_a_request_says_nothing_but_what_is_asked_for() -> None:
    with pytest.raises(ValidationError):
        Note.model_validate({"stars": 1, "more": 2})


def test_what_was_wrong_is_not_repeated_where_it_may_be_logged() -> None:
    with pytest.raises(ValidationError) as refused:
        Note.model_validate({"stars": "a secret"})

    assert "a secret" not in str(refused.value)


@pytest.mark.parametrize("written", ["1_0", "+1", "1.0", " 1", "1 ", "1e1", "\uff11", "", "-", "0x1"])
def test_a_number_in_a_query_is_written_in_digits(written: str) -> None:
    with pytest.raises(ValidationError):
        whole_numbers.validate_python(written)


@pytest.mark.parametrize(("written", "number"), [("0", 0), ("007", 7), ("-1", -1), (12, 12)])
def test_digits_are_a_number(written: object, number: int) -> None:
    assert whole_numbers.validate_python(written) == number
