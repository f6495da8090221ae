"""What the commands of this service take."""

import argparse

from pydantic import TypeAdapter, ValidationError

from common.fields import Username

USERNAME: TypeAdapter[str] = TypeAdapter(Username)


def username(text: str) -> str:
    """An argument that is a username, as argparse takes it: raises ArgumentTypeError."""
    try:
        return USERNAME.validate_python(text)
    except ValidationError as exc:
        raise argparse.ArgumentTypeError("this cannot be a username") from exc
