"""What FastAPI's API document lacks."""

from collections.abc import Iterator
from typing import Any

from common.errors import ProblemDetails

Document = dict[str, Any]

REF = "#/components/schemas/"


def complete(document: Document) -> Document:
    """Add the schemas that `problems` refers to, and an example to each parameter in a path."""
    schema = ProblemDetails.model_json_schema(ref_template=REF + "{model}")
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(schema.pop("$defs"), ProblemDetails=schema)
    for operation in operations(document):
        _drop_default_422(operation)
        _name_inline_bodies(operation, schemas)
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "path" and "examples" in parameter["schema"]:
                # Swagger fills in this one, and not those of a schema.
                parameter["example"] = parameter["schema"]["examples"][0]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return document


def operations(document: Document) -> Iterator[Document]:
    """Every operation of every path."""
    for path in document["paths"].values():
        yield from (operation for operation in path.values() if isinstance(operation, dict))


def _drop_default_422(operation: Document) -> None:
    """A route that documents no 422 takes only what it cannot refuse, whatever FastAPI assumes."""
    if "application/json" in operation["responses"].get("422", {}).get("content", {}):
        del operation["responses"]["422"]


def _name_inline_bodies(operation: Document, schemas: Document) -> None:
    """FastAPI names only the bodies that it reads itself; generated clients need a name for each."""
    for content in operation.get("requestBody", {}).get("content", {}).values():
        schema = content["schema"]
        if "properties" in schema:
            schemas[schema["title"]] = schema
            content["schema"] = {"$ref": REF + schema["title"]}
