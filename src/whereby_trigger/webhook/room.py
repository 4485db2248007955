"""The room a webhook names: its URL, and the key that identifies it.

The URL is `https://{subdomain}.whereby.com{room name}` and nothing else. Both parts come off the wire, so no
value of either may lead outside `*.whereby.com`. Source: Whereby docs, Assistant SDK Reference.
"""

import re
from functools import lru_cache
from urllib.parse import quote, unquote, urlsplit

from msgspec import Struct

from whereby_trigger.errors import ConfigError
from whereby_trigger.webhook.types import RoomData, Webhook

_DOMAIN = ".whereby.com"
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_NOT_FOR_URLS = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_EXAMPLE = "https://your-subdomain.whereby.com/your-room"


class RoomIdentity(Struct, frozen=True, kw_only=True):
    """Hold the identity of a Whereby room.

    `key` is the lower-cased host and the path: one room, one key. `name` has exactly one leading slash and no
    trailing one; `subdomain` is lower-cased.
    """

    key: str
    url: str
    name: str
    subdomain: str


def room_of(webhook: Webhook, subdomain: str | None = None) -> RoomIdentity | None:
    """Return the room a webhook names, or None if it names no valid one.

    `subdomain` is the setting of that name, used only if the webhook carries none.
    """
    room = _resolve(webhook, subdomain)
    return room if isinstance(room, RoomIdentity) else None


def why_no_room(webhook: Webhook, subdomain: str | None = None) -> str:
    """Return in words why `room_of` returns None for the same arguments, or `""` if it returns a room."""
    reason = _resolve(webhook, subdomain)
    return reason if isinstance(reason, str) else ""


def room_from_url(url: str) -> RoomIdentity:
    """Return the room of a URL that a person pastes; query and fragment, such as a room key, are dropped.

    Raises `ConfigError` if it is not the URL of a Whereby room.
    """
    try:
        parts = urlsplit(url)
        host = parts.netloc.lower()
        name = unquote(parts.path, errors="strict")
    except ValueError:
        raise ConfigError(f"Not a room's URL. Write it like {_EXAMPLE}") from None
    if parts.scheme != "https" or not host.endswith(_DOMAIN):
        raise ConfigError(f"Not the https URL of a room at {_DOMAIN[1:]}. Write it like {_EXAMPLE}")
    room = _room(host.removesuffix(_DOMAIN), name, "its subdomain", "the URL")
    if isinstance(room, str):
        raise ConfigError(f"Not a room's URL: {room}. Write it like {_EXAMPLE}")
    return room


def room_path(room_name: str) -> str:
    """Return the path of a room's name, plain or percent-encoded, as in the room's key and URL."""
    return "/" + quote(_decoded(room_name).strip("/"))


def room_selected(text: str) -> str:
    """Return the key of a room from its URL or its key; from its name, the path with which its key ends.

    Raises ConfigError if it is a URL, but not one of a Whereby room.
    """
    if "://" in text:
        return room_from_url(text).key
    host, slash, name = text.partition("/")
    if host and slash and "." in host:
        return f"{host.lower()}/{quote(name, safe='/%', errors='surrogateescape')}"
    return "/" + quote(text.strip("/"), safe="/%", errors="surrogateescape")


def room_named(text: str, subdomain: str | None) -> RoomIdentity | None:
    """Return the one room that a text names; None if it is a name, and nothing says of which subdomain.

    Raises ConfigError if it cannot name a room.
    """
    selected = room_selected(text)
    if not selected.startswith("/"):
        return room_from_url(f"https://{selected}")
    return None if subdomain is None else room_from_url(f"https://{subdomain}.whereby.com{selected}")


def is_selected(key: str, selected: str) -> bool:
    """Return True if the room with a key is the one that `room_selected` returned, or has its name."""
    return key[key.find("/") :] == room_path(selected) if selected.startswith("/") else key == selected


def _resolve(webhook: Webhook, subdomain: str | None) -> RoomIdentity | str:
    data = webhook.data
    if not isinstance(data, RoomData):
        return f"a {webhook.type} webhook names no room"
    if data.subdomain:
        return _room_named(data.subdomain, data.room_name, "the webhook's subdomain")
    if subdomain:
        return _room_named(subdomain, data.room_name, "the subdomain setting")
    return "no subdomain in the webhook: set subdomain=…"


@lru_cache(maxsize=1024)
def _room_named(subdomain: str, room_name: str, which_subdomain: str) -> RoomIdentity | str:
    """Return the room of a webhook; cached, because a room has many webhooks."""
    return _room(subdomain, _decoded(room_name), which_subdomain, "the webhook")


def _decoded(room_name: str) -> str:
    # Whereby puts the name into its URLs unchanged: an encoded name and its plain form are one room.
    try:
        return unquote(room_name, errors="strict")
    except UnicodeDecodeError:
        return room_name


def _room(subdomain: str, room_name: str, which_subdomain: str, name_source: str) -> RoomIdentity | str:
    if not _LABEL.fullmatch(subdomain):
        return f"{which_subdomain} is not a host label"
    path = room_name.strip("/")
    if not path:
        return f"no room name in {name_source}"
    if _NOT_FOR_URLS.search(path):
        return "the room name has characters that no URL can carry"
    # A client removes such a segment, and the one before it, from the URL: that would be another room.
    if any(segment.strip(".") == "" for segment in path.split("/") if segment):
        return "a part of the room name is nothing but dots"
    host = subdomain.lower() + _DOMAIN
    encoded = "/" + quote(path)
    return RoomIdentity(
        key=host + encoded, url=f"https://{host}{encoded}", name="/" + path, subdomain=subdomain.lower()
    )
