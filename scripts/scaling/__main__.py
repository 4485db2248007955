"""Measure what docs/scaling.md calculates with, on a real PostgreSQL, and write the calculation into the page."""

import asyncio

from scripts.scaling.figures import save
from scripts.scaling.measure import Dose, measure
from scripts.scaling.paper import tables, write


def main() -> None:
    figures = asyncio.run(measure(Dose()))
    save(figures)
    write(figures)
    print("\n".join(tables(figures).values()))


if __name__ == "__main__":
    main()
