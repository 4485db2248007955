"""The public names are those that docs/reference.md lists, and each has a docstring."""

import ast
import inspect
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import whereby_trigger
import whereby_trigger.testing
from tests.support import reference
from tests.support.markdown import Page
from whereby_trigger import TriggerError
from whereby_trigger.store import State
from whereby_trigger.webhook import WEBHOOK_CLASSES

REFERENCE = Page(Path(__file__).parents[1] / "docs" / "reference.md")
EVENTS = {name for name in whereby_trigger.__all__ if "_EVENT_" in name}
NO_DOCSTRINGS = {"RoleName", *EVENTS, "Webhook", "WebhookTriggers", "WebhookType"}
"""Constants and types that have nowhere to put one; the comments below them and the reference say what they are."""

NOT_IMPERATIVE = re.compile(r"(A|An|The|This|It|There|What|Whether|\w+(ed|ing|s))\b")
MODULES = [whereby_trigger, whereby_trigger.testing]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_a_star_import_gives_exactly_the_documented_names(module: Any) -> None:
    code = f"before = set(globals()) | {{'before'}}\nfrom {module.__name__} import *\nprint(*set(globals()) - before)"
    given = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    documented = [row[0].strip("`") for row in REFERENCE.table(f"`{module.__name__}`")]
    assert sorted(given) == sorted(documented)
    assert all(row[1] for row in REFERENCE.table(f"`{module.__name__}`"))


def public(module: Any) -> Iterator[tuple[str, Any]]:
    """Yield every public class and function, and the public members of our classes."""
    for name in module.__all__:
        value = getattr(module, name)
        if name in NO_DOCSTRINGS:
            continue
        yield name, value
        if inspect.isclass(value):
            members = {member: found for member, found in vars(value).items() if not member.startswith("_")}
            yield from ((f"{name}.{member}", found) for member, found in members.items() if inspect.isfunction(found))


PUBLIC = dict([*public(whereby_trigger), *public(whereby_trigger.testing)])
REGISTERING = {f"Trigger.{name}": getattr(whereby_trigger.Trigger(), name) for name in ("when", "on", "once", "asgi")}


def is_called(value: Any) -> bool:
    """Return True for what acts; the docstring of a webhook or an error says what has happened."""
    is_webhook = value in (*WEBHOOK_CLASSES.values(), whereby_trigger.UnknownWebhook)
    return not is_webhook and not (inspect.isclass(value) and issubclass(value, TriggerError))


@pytest.mark.parametrize(("name", "value"), (PUBLIC | REGISTERING).items(), ids=PUBLIC | REGISTERING)
def test_a_public_docstring_begins_with_a_sentence_that_says_what_to_expect(name: str, value: Any) -> None:
    first = (inspect.getdoc(value) or "").partition("\n")[0]
    assert re.fullmatch(r"[A-Z].+\.", first), f"{name}: {first!r} is no sentence"
    assert not is_called(value) or not NOT_IMPERATIVE.match(first), f"{name}: {first!r} is not imperative"


def test_the_reference_lists_every_setting_with_its_sources_and_default() -> None:
    assert REFERENCE.table("Keyword") == reference.settings()


def test_the_reference_lists_every_field_of_every_webhook() -> None:
    assert REFERENCE.table("JSON") == reference.fields()


def test_the_reference_lists_every_state() -> None:
    states = [row[0].strip("`") for row in REFERENCE.table("State")]
    assert states == list(State)
    assert {row[1].strip("`") for row in REFERENCE.table("Reason")} == set(State) - {State.PENDING}  # which has none


def test_the_reference_maps_names_of_the_original_to_names_that_there_are() -> None:
    mapped = [row[1] for row in REFERENCE.table("The original") if len(row) == 2]
    for cell in mapped:
        for name in re.findall(r"`(\w+)`", cell):
            assert hasattr(whereby_trigger, name) or name in ("port",), cell
        for member in re.findall(r"`@?(?:await )?trigger\.(\w+)", cell):
            assert hasattr(whereby_trigger.Trigger(), member), cell


def test_no_two_classes_of_the_package_share_a_name() -> None:
    package = Path(whereby_trigger.__file__).parent
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in package.rglob("*.py")]
    names = Counter(node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    assert [name for name, times in names.items() if times > 1] == []
