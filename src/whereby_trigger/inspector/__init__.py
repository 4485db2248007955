"""The inspector: a page, and its JSON, that shows what a trigger does. Starlette and Jinja2 are loaded late."""

from whereby_trigger.inspector.mount import InspectedProgram, Inspector

__all__ = ["InspectedProgram", "Inspector"]
