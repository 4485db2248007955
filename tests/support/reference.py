"""The tables of docs/reference.md that follow from the code, as they must read."""

from types import UnionType
from typing import Any

import msgspec

from whereby_trigger.config import OPTIONS
from whereby_trigger.webhook import WEBHOOK_TYPES, WebhookType
from whereby_trigger.webhook.types import data_class

Row = list[str]


def settings() -> list[Row]:
    """Return the rows of the settings, in their order."""
    return [
        [
            code(option.name),
            code("--" + option.name.replace("_", "-")),
            ", ".join(map(code, (*option.environment, *option.files))),
            default(option.default),
            option.help,
        ]
        for option in OPTIONS
    ]


def fields() -> list[Row]:
    """Return the rows of the fields of all webhooks' data, in the order of their declaration."""
    types: dict[tuple[str, str, str], list[WebhookType]] = {}
    for type in WEBHOOK_TYPES:
        for field in msgspec.structs.fields(data_class(type)):
            types.setdefault((field.encode_name, field.name, shown(field.name, field.type)), []).append(type)
    return [[code(wire), code(name), code(type), of(among)] for (wire, name, type), among in types.items()]


def code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def default(value: Any) -> str:
    if value in (None, ()):
        return ""
    return code(f"{value:g}" if isinstance(value, float) else str(value))


def shown(name: str, type: Any) -> str:
    if name == "role_name":
        return "RoleName"
    if isinstance(type, UnionType) or not hasattr(type, "__name__") or hasattr(type, "__args__"):
        return str(type).replace("collections.abc.", "")
    return str(type.__name__)


def of(among: list[WebhookType]) -> str:
    """Name webhook types, a whole family of them by its stem."""
    if len(among) == len(WEBHOOK_TYPES):
        return "all"
    names: list[str] = []
    for type in among:
        stem = type.rpartition(".")[0]
        family = [other for other in WEBHOOK_TYPES if other.rpartition(".")[0] == stem]
        name = f"{stem}.*" if len(family) > 1 and set(family) <= set(among) else str(type)
        if name not in names:
            names.append(name)
    return ", ".join(map(code, names))
