"""One OpenAPI document made of several."""

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from common.api.openapi import Document


def merge(base: Document, documents: Mapping[str, Document]) -> Document:
    """`base` with the paths of all `documents`, and the components that they refer to.

    A component whose name means something else elsewhere gets its
    document's name in front.
    """
    merged = deepcopy(base)
    for name, document in documents.items():
        _add(merged, name, deepcopy(document))
    return merged


def _add(merged: Document, name: str, document: Document) -> None:
    known = merged.setdefault("components", {})
    for kind, component in _references(document):
        meaning = document["components"][kind][component]
        if known.get(kind, {}).get(component, meaning) != meaning:
            document = _renamed(document, kind, component, f"{name}_{component}")
    for kind, component in _references(document):
        known.setdefault(kind, {})[component] = document["components"][kind][component]
    schemes = document.get("components", {}).get("securitySchemes", {})
    known.setdefault("securitySchemes", {}).update(schemes)
    merged["paths"].update(document["paths"])


def _renamed(document: Document, kind: str, old: str, new: str) -> Document:
    path = f"#/components/{kind}/"
    text = json.dumps(document).replace(json.dumps(path + old), json.dumps(path + new))
    renamed: Document = json.loads(text)
    renamed["components"][kind][new] = renamed["components"][kind].pop(old)
    return renamed


def _references(document: Document) -> list[tuple[str, str]]:
    """The kind and name of every component that the paths refer to, and that these refer to in turn."""
    found: list[tuple[str, str]] = []
    pending = [document["paths"]]
    while pending:
        for reference in _refs(pending.pop()):
            kind, component = reference.split("/")[-2:]
            if (kind, component) not in found:
                found.append((kind, component))
                pending.append(document["components"][kind][component])
    return found


def _refs(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from _refs(value)
    elif isinstance(node, list):
        for value in node:
            yield from _refs(value)
