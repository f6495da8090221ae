"""What the indexes of words know of a post's id: in which times it is, and in which samples.

The first digits of an id are those of the times that the post is in, the longer
the shorter they are. The last ones are random.
"""

# 65 seconds, 17 minutes, 5 hours, 3 days, and 50 days.
DIGITS = (8, 7, 6, 5, 4)
SHORTEST_TIME = 1 << 4 * (32 - DIGITS[0])
TIMES = f"(ARRAY[{', '.join(f'left(CAST(id AS text), {digits})' for digits in DIGITS)}])"
# One post in 4096, and one in 256.
SPARSE, DENSE = (f"right(CAST(id AS text), {len(end)}) = '{end}'" for end in ("000", "00"))


def times(low: int, high: int) -> list[str]:
    """Those that ids from one to another are in, the second not included; a minute more at either end."""
    return _times(low // SHORTEST_TIME, (high - 1) // SHORTEST_TIME + 1, DIGITS[0])


def _times(first: int, end: int, digits: int) -> list[str]:
    # Sixteen of one length are one of the next, and some may be left over at either end.
    longer = range(-(-first // 16), end // 16)
    if digits == DIGITS[-1] or not longer:
        return _named(first, end, digits)
    before, after = _named(first, 16 * longer.start, digits), _named(16 * longer.stop, end, digits)
    return [*before, *_times(longer.start, longer.stop, digits - 1), *after]


def _named(first: int, end: int, digits: int) -> list[str]:
    return [f"{number:0{digits}x}" for number in range(first, end)]
