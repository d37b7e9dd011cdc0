"""The figures of all processes as Markdown."""

import statistics
from collections.abc import Sequence
from typing import Any


# All figures of a model: those of each repeat, by name.
Figures = dict[str, list[Any]]

COLUMNS = {
    "floor": "floor",
    "fit": "fit",
    "draws": "+ draws",
    "report": "+ report",
    "second fit": "second fit",
    "nuts": "NUTS",
    "nuts again": "second NUTS",
    "svi": "SVI",
    "pathfinder": "Pathfinder",
}


def as_text(value: float | None) -> str:
    return "–" if value is None else f"{value:.{2 if value < 10 else 1}f}"


def middle(figures: Figures, name: str, kind: str | None = None) -> float | None:
    """The median over processes, or `None` where nothing was measured."""
    values = [value if kind is None else value[kind] for value in figures.get(name, ())]
    return statistics.median(values) if values else None


def agreed(figures: Figures, name: str) -> str:
    """What all processes say, or all that any says."""
    return ", ".join(sorted({str(value) for value in figures.get(name, ())})) or "–"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["--:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def seconds(results: dict[str, Figures], kind: str) -> str:
    header = [f"{kind} seconds", "d", *COLUMNS.values()]
    rows = []
    for name, figures in results.items():
        times = [as_text(middle(figures, column, kind)) for column in COLUMNS]
        rows.append([name, agreed(figures, "dim"), *times])
    return table(header, rows)


def answers(results: dict[str, Figures]) -> str:
    header = ["", "family", "flow", "trusted", "gradients"]
    header += ["peak MB", "before", "NUTS, peak MB", "before", "NUTS, R-hat"]
    rows = []
    for name, figures in results.items():
        facts = [agreed(figures, fact) for fact in ("family", "flow", "trusted")]
        numbers = ["evaluations", "megabytes", "megabytes before"]
        numbers += ["nuts megabytes", "nuts megabytes before"]
        medians = [middle(figures, number) for number in numbers]
        whole = ["–" if value is None else f"{value:,.0f}" for value in medians]
        rows.append([name, *facts, *whole, as_text(middle(figures, "nuts rhat"))])
    return table(header, rows)


def verdict(value: float | None, bar: float | None) -> str:
    if value is None or bar is None:
        return "–"
    word = "ok" if value <= bar else "MISSED"
    return f"{word} ({as_text(value)}, bar {as_text(bar)})"


def bars(results: dict[str, Figures]) -> str:
    """Whether the bars hold, in processor seconds."""
    header = ["", "fit ≤ 2 × floor + 1.5 s", "report ≤ 3 × floor + 3 s", "report ≤ NUTS"]
    rows = []
    for name, figures in results.items():
        names = ("floor", "fit", "report", "nuts")
        floor, fit, report, nuts = (middle(figures, n, "processor") for n in names)
        if any(figures.get("flow", ())):
            of_floor = ["a flow", "a flow"]
        else:
            of_floor = [
                verdict(fit, None if floor is None else 2 * floor + 1.5),
                verdict(report, None if floor is None else 3 * floor + 3),
            ]
        rows.append([name, *of_floor, verdict(report, nuts)])
    return table(header, rows)


def tables(results: dict[str, Figures]) -> str:
    parts = [seconds(results, "processor"), seconds(results, "wall")]
    return "\n\n".join([*parts, bars(results), answers(results)])
