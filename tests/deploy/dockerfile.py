"""A Dockerfile, parsed into its stages and their instructions."""

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

COMMENT = re.compile(r"^[ \t]*#.*\n", re.MULTILINE)
CONTINUED = re.compile(r"\\\n[ \t]*")


@dataclass(frozen=True)
class Instruction:
    """Hold one instruction: its name in capitals, and the rest of its line with its continuation lines."""

    name: str
    value: str

    @property
    def words(self) -> list[str]:
        """The value as a list; it is JSON if it is in brackets."""
        words: list[str] = json.loads(self.value) if self.value.startswith("[") else shlex.split(self.value)
        return words


def instructions(path: Path) -> list[Instruction]:
    """Read a Dockerfile's instructions, of all stages in order."""
    text = CONTINUED.sub("", COMMENT.sub("", path.read_text(encoding="utf-8")))
    lines = (line.partition(" ") for line in text.splitlines() if line.strip())
    return [Instruction(name.upper(), value.strip()) for name, _, value in lines]


def stages(path: Path) -> list[list[Instruction]]:
    """Read a Dockerfile's instructions stage by stage; those before the first FROM belong to none."""
    found: list[list[Instruction]] = []
    for instruction in instructions(path):
        if instruction.name == "FROM":
            found.append([])
        elif found:
            found[-1].append(instruction)
    return found
