"""Check that the container files in deploy/ work: scripts/containers.sh starts this, and says what it needs."""

import argparse
import time
from pathlib import Path

from scripts.containers import compose, image, rooms
from scripts.containers.podman import CheckFailed

CHECKS = {"compose": compose.check, "image": image.check, "rooms": rooms.check}


def main() -> int:
    """Run the checks that are named, or all; return 1 if one fails."""
    parser = argparse.ArgumentParser(prog="containers.sh")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("checks", nargs="*", metavar="check", help=", ".join(CHECKS))
    arguments = parser.parse_args()
    if unknown := set(arguments.checks) - CHECKS.keys():
        parser.error(f"there is no check {', '.join(sorted(unknown))}: they are {', '.join(CHECKS)}")
    failed = 0
    for name, check in CHECKS.items():
        if arguments.checks and name not in arguments.checks:
            continue
        began = time.monotonic()
        print(f"{name}", flush=True)
        try:
            check(arguments.folder)
        except CheckFailed as failure:
            failed += 1
            print(f"  FAILED {failure}", flush=True)
        print(f"  {time.monotonic() - began:.0f} s", flush=True)
    print(f"{'all checks passed' if not failed else f'{failed} checks failed'}", flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    raise SystemExit(main())
