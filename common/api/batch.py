"""Many things in one call: a query parameter that the client repeats."""

from typing import Any

from fastapi import Query
from pydantic import AfterValidator

from common.fields import EXAMPLE_ID

MAX_BATCH = 100


def batch(
    name: str,
    example: str = EXAMPLE_ID,
    description: str = f"Repeat it for several: at most {MAX_BATCH}.",
    min_length: int | None = 1,
) -> Any:
    """The query parameter `name`, up to a hundred times: `Annotated[list[Id], batch("post_id"), UNIQUE]`.

    `min_length` is None for a parameter that may be left out.
    """
    return Query(
        alias=name,
        min_length=min_length,
        max_length=MAX_BATCH,
        description=description,
        examples=[[example]],
    )


# Each once, in the order asked.
UNIQUE = AfterValidator(lambda values: list(dict.fromkeys(values)))
