"""The room that a person names: by its URL, its key or its name, in every command."""

from urllib.parse import quote

from whereby_trigger.cli.output import Failed
from whereby_trigger.store import RoomQuery, RoomStore
from whereby_trigger.webhook import RoomIdentity, room_from_url

AMBIGUOUS = 50
"""Entries of a name that are looked at for the room it means."""


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


async def room_in(store: RoomStore, text: str, subdomain: str | None) -> RoomIdentity:
    """Return the room that a text names, or to which a name belongs in the store.

    Raises Failed if it belongs to none there, or to several.
    """
    room = room_named(text, subdomain)
    if room is not None:
        return room
    keys = {entry.key for entry in await store.find_rooms(RoomQuery(room=room_selected(text), limit=AMBIGUOUS))}
    if not keys:
        raise Failed(
            f"no room named {text} has asked for an assistant yet: write its URL, like "
            "https://your-subdomain.whereby.com/your-room, or set subdomain"
        )
    if len(keys) > 1:
        raise Failed(f"several rooms are named {text}: write one of {', '.join(sorted(keys))}")
    return room_from_url(f"https://{keys.pop()}")
