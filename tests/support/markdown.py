"""The parts of the docs that tests read: blocks of code, rows of tables, links."""

import re
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
CELL_BORDER = re.compile(r"(?<!\\)\|")


@dataclass(frozen=True)
class Block:
    """Hold a block of code and the line of the page it begins in."""

    language: str
    code: str
    line: int


@dataclass(frozen=True)
class Page:
    """Hold one page of the docs."""

    path: Path

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    def blocks(self, language: str) -> list[Block]:
        found = [Block(m[1], m[2], self.text.count("\n", 0, m.start()) + 1) for m in FENCE.finditer(self.text)]
        return [block for block in found if block.language == language]

    def links(self) -> list[str]:
        """List the targets of links in prose, not in code."""
        return LINK.findall(FENCE.sub("", self.text))

    def anchors(self) -> set[str]:
        """Return the anchors of the headings, as GitHub makes them."""
        headings = HEADING.findall(FENCE.sub("", self.text))
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    def table(self, first_header: str) -> list[list[str]]:
        """Read the rows of the table whose first column has this header, cell by cell."""
        lines = self.text.splitlines()
        start = next(number for number, line in enumerate(lines) if cells(line)[:1] == [first_header])
        rows: list[list[str]] = []
        for line in lines[start + 2 :]:
            if not line.startswith("|"):
                break
            rows.append(cells(line))
        return rows


def cells(line: str) -> list[str]:
    """Split a row into its cells."""
    return [cell.strip() for cell in CELL_BORDER.split(line)[1:-1]] if line.startswith("|") else []
