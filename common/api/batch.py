"""Many things in one call: a query parameter that the client repeats."""

from typing import Any

from fastapi import Query
from pydantic import AfterValidator

from common.fields import EXAMPLE_ID

MAX_BATCH = 100


def batch(name: str, example: str = EXAMPLE_ID) -> Any:
    """The query parameter `name`, up to a hundred times: `Annotated[list[Id], batch("post_id"), UNIQUE]`."""
    return Query(
        alias=name,
        min_length=1,
        max_length=MAX_BATCH,
        description=f"Repeat it for several: at most {MAX_BATCH}.",
        examples=[[example]],
    )


# Each once, in the order asked.
UNIQUE = AfterValidator(lambda values: list(dict.fromkeys(values)))
