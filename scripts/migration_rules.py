"""Find what in a PostgreSQL migration would disturb replicas of the version before, which keep running beside it."""

import re

LANGUAGE = {
    r"\bDROP\s+(?!DEFAULT|NOT\s+NULL|EXPRESSION)": "takes something away",
    r"\bRENAME\b": "renames something",
    r"\bALTER\s+(COLUMN\s+)?\w+\s+(SET\s+DATA\s+)?TYPE\b": "changes a type",
    r"\bSET\s+NOT\s+NULL\b": "forbids NULL where it was allowed",
    r"\bADD\s+(CONSTRAINT\s+\w+\s+)?(CHECK|UNIQUE|FOREIGN|EXCLUDE|PRIMARY)\b": "forbids what was allowed",
    r"\bADD\s+(COLUMN\s+)?(?!CONSTRAINT\b)\w+\s(?![^,;]*\bDEFAULT\b)[^,;]*\bNOT\s+NULL\b": "has no DEFAULT",
}
"""Statements that break a replica that does not expect them."""

CONCURRENTLY = re.compile(r"\bCONCURRENTLY\b", re.IGNORECASE)
ADMITS = re.compile(r"\bUPDATE\s+whereby_trigger\.version\s+SET\s+admits\s*=\s*(\d+)", re.IGNORECASE)
INDEX = re.compile(r"\bCREATE\s+(?:UNIQUE\s+)?INDEX\s+(IF\s+NOT\s+EXISTS\s+)?\w+\s+ON\s+([\w.]+)", re.IGNORECASE)
TABLE = re.compile(r"\bCREATE\s+TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?([\w.]+)", re.IGNORECASE)
COMMENT = re.compile(r"--[^\n]*")
WIDER = re.compile(
    r"\bDROP\s+CONSTRAINT\s+(\w+),\s+ADD\s+CONSTRAINT\s+\1\s+CHECK\s*\([^;]*?\)\s*NOT\s+VALID\b", re.IGNORECASE
)
"""A check that replaces another of its name. The tests of its table show that it allows more, not less."""

SAME_TYPE = re.compile(
    r"\bALTER\s+COLUMN\s+(\w+)\s+TYPE\s+[\w\[\]]+,\s+ALTER\s+COLUMN\s+\1\s+SET\s+STATISTICS\s+0\b", re.IGNORECASE
)
"""The type that a column has, which drops the planner's statistics of it. A test shows that it is the same type."""


def complaints(number: int, script: str) -> list[str]:
    """Return what is wrong with a migration after the first; CONTRIBUTING.md has the rules."""
    sql = SAME_TYPE.sub("", WIDER.sub("", COMMENT.sub("", script)))
    admits = ADMITS.search(sql)
    found = [] if admits else [what for pattern, what in LANGUAGE.items() if re.search(pattern, sql, re.IGNORECASE)]
    if admits and not 1 < int(admits[1]) < number:
        found.append(f"admits {admits[1]}, but what it takes away must be unused by an earlier schema's programs")
    if CONCURRENTLY.search(sql):
        found.append("says CONCURRENTLY, which no transaction can")
    made = set(TABLE.findall(sql))
    for told, table in INDEX.findall(sql):
        if not told and table not in made:
            found.append(f"indexes {table} without IF NOT EXISTS, so that it cannot be done ahead, without a lock")
    return found
