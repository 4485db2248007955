"""Read a struct from JSON leniently: a field that does not fit is converted or left out."""

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Raw, Struct, ValidationError
from msgspec.json import Decoder

T = TypeVar("T", bound=Struct)

_STRING = Decoder(str)
_NUMBER = Decoder(float)
_FIELDS = Decoder(dict[str, Raw])


class LenientReader(Generic[T]):
    """Read one struct type, whose fields all have defaults."""

    def __init__(self, struct: type[T]) -> None:
        self._struct = struct
        self._strict = Decoder(struct)
        self._fields = [
            (field.name, field.encode_name, Decoder(field.type)) for field in msgspec.structs.fields(struct)
        ]

    def read(self, json: bytes | Raw) -> T:
        """Read the struct. Raises `ValidationError` only if the JSON is not an object."""
        try:
            return self._strict.decode(json)
        except ValidationError:
            return self._read_each(read_fields(json))

    def _read_each(self, sent: Mapping[str, Raw]) -> T:
        fitting: dict[str, Any] = {}
        for name, wire_name, decoder in self._fields:
            value = sent.get(wire_name)
            if value is None:
                continue
            try:
                fitting[name] = decoder.decode(value)
            except ValidationError:
                fitting |= _converted(name, value)
        return self._struct(**fitting)


def read_fields(json: bytes | Raw) -> dict[str, Raw]:
    """Return an object's fields, each as JSON. Raises `ValidationError` if it is not an object."""
    return _FIELDS.decode(json)


def read_string(json: Raw) -> str:
    """Return a string, or `""` if the JSON is something else."""
    try:
        return _STRING.decode(json)
    except ValidationError:
        return ""


def _converted(name: str, value: Raw) -> dict[str, Any]:
    convert = _CONVERSIONS.get(name)
    try:
        return {name: convert(value)} if convert else {}
    except ValidationError:
        return {}


def _number_as_text(value: Raw) -> str:
    _NUMBER.decode(value)
    return bytes(value).decode()


def _whole_number(value: Raw) -> int:
    return int(_NUMBER.decode(value))


def _counts(value: Raw) -> dict[str, int]:
    counts: dict[str, int] = {}
    for role, count in read_fields(value).items():
        try:
            counts[role] = _whole_number(count)
        except ValidationError:
            continue
    return counts


_CONVERSIONS: Mapping[str, Callable[[Raw], Any]] = {
    "api_version": _number_as_text,
    "num_clients": _whole_number,
    "num_clients_by_role_name": _counts,
    "duration_in_seconds": _whole_number,
}
