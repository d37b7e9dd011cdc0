"""A picture of what `accuracy.py --output FILE.json` measured: error against cost.

`python accuracy_picture.py FILE.json ... PICTURE.png`. A point is a posterior; an error
is the larger of z and r, the median over keys.
"""

import json
import pathlib
import statistics
import sys

import matplotlib.pyplot as plt


GOOD, EXCELLENT = 0.29, 0.1


def main() -> None:
    *files, picture = sys.argv[1:]
    results = {}
    for file in files:
        results |= json.loads(pathlib.Path(file).read_text())
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for contender, runs in results.items():
        points = []
        for run in runs.values():
            errors = [min(max(row["z"], row["r"]), 30) for row in run["rows"]]
            costs = [row["evaluations"] for row in run["rows"]]
            points.append((statistics.median(costs), statistics.median(errors)))
        is_auto = contender == "auto"
        axes.plot(
            *zip(*points, strict=True),
            "*" if is_auto else "o",
            markersize=11 if is_auto else 5,
            alpha=1 if is_auto else 0.6,
            zorder=3 if is_auto else 2,
            label="vi.fit(target, key=key)" if is_auto else contender,
        )
    for level, name in ((EXCELLENT, "excellent"), (GOOD, "good")):
        axes.axhline(level, color="gray", linewidth=0.8, linestyle=":")
        axes.annotate(name, (1, level), xycoords=("axes fraction", "data"), va="top")
    axes.set(xscale="log", yscale="log", xlabel="gradients of the log density")
    axes.set_ylabel("largest error, in posterior standard deviations")
    axes.legend(fontsize="small")
    figure.savefig(picture)


if __name__ == "__main__":
    main()
