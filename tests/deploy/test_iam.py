"""The rights that the polls service is given, against the calls that it makes."""

import json
import re

from polls_service.settings import PollsSettings
from tests.deploy.processes import ROOT

POLICY = json.loads((ROOT / "deploy/iam/dynamodb.json").read_text())["Statement"]
SOURCES = "".join(path.read_text() for path in sorted((ROOT / "polls_service").glob("*.py")))
# IAM knows no right for a transaction as such: each write in it needs its own.
TRANSACTION = "TransactWriteItems"


def _called() -> set[str]:
    calls = {
        "".join(word.capitalize() for word in name.split("_"))
        for name in re.findall(r"\b_dynamodb\.(\w+),", SOURCES)
    }
    written = {f"{write}Item" for write in re.findall(r'\{"(Put|Update|Delete|ConditionCheck)": ', SOURCES)}
    return calls - {TRANSACTION} | written


def _allowed() -> set[str]:
    actions: set[str] = set()
    for statement in POLICY:
        given = statement["Action"]
        actions |= {given} if isinstance(given, str) else set(given)
    return actions


def test_the_rights_are_those_that_its_calls_need() -> None:
    assert _allowed() == {f"dynamodb:{call}" for call in _called()}


def test_the_rights_are_for_its_table_alone() -> None:
    table = PollsSettings.model_fields["dynamodb_polls_table"].default

    assert {each["Resource"] for each in POLICY} == {f"arn:aws:dynamodb:*:*:table/{table}"}
    assert {each["Effect"] for each in POLICY} == {"Allow"}
