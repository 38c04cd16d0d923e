"""How exact simulators are: writes ``docs/exactness.md`` and its figure from ``results.json``.

nox -s exactness -- SET/exactness.jsonl.gz --save results.json             # asks all systems, about an hour
nox -s exactness -- SET/exactness.jsonl.gz --save results.json --seconds   # what an output takes; nothing else may run
python benchmarks/exactness/page.py                                        # only writes
"""

import json
import sys
from pathlib import Path
from string import Template
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from timing import markdown  # noqa: E402

from firstspike.plots.look import GREY, log_ticks, marker_style, new_figure, style  # noqa: E402

NUMBERS, PAGE, DOCS = HERE / "results.json", HERE / "exactness.template.md", HERE.parents[1] / "docs"
SMALL = HERE / "small.jsonl"
FIGURE = "exactness.png"
Numbers = dict[str, Any]
GROUPS = ("random", "hard", "trains", "hard trains", "other neurons")


def order(numbers: Numbers) -> list[Numbers]:
    """Systems, by how many of all problems they can express."""
    return sorted(numbers.values(), key=lambda x: sum(x["scores"][g]["cannot"] for g in GROUPS))


def cell(x: Any, missing: str = "") -> str:
    """A size with one digit; what is not finite is counted after it."""
    if x is None or x == 0 or 0.095 <= x < 99.5:
        return missing if x is None else f"{x:.1g}" if x < 1 else f"{x:.0f}"
    mantissa, exponent = f"{x:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def gradient(score: Numbers) -> str:
    """The larger of the errors with respect to weights and to times."""
    both = [score[name]["largest"] for name in ("by_weight", "by_time") if score[name]]
    bad = max(score.get(f"{name}_not_finite", 0) for name in ("by_weight", "by_time"))
    found = [cell(max(both))] if both else []
    return ", ".join([*found, *([f"not finite in {bad}"] if bad else [])])


def expresses(systems: list[Numbers]) -> str:
    """Which share of each group a system can express, and why not all."""
    rows = [["", "version", *GROUPS, "cannot"]]
    for system in systems:
        scores = [system["scores"][g] for g in GROUPS]
        shares = [f"{100 * (1 - x['cannot'] / x['problems']):.0f} %" for x in scores]
        reasons = list(dict.fromkeys(reason for x in scores for reason in x["reasons"]))
        rows.append([system["name"], system["version"], *shares, ", ".join(reasons)])
    return markdown(rows)


def results(systems: list[Numbers], group: str) -> str:
    """What came out for a group."""
    header = ["", "step", "asked", "raised", "missed", "invented", "off by > 0.1", "largest error", "median"]
    rounded = "train" not in group
    rows: list[list[str]] = [[*header, *(["of rounding"] if rounded else []), "gradient"]]
    for system in systems:
        score = system["scores"][group]
        asked = score["problems"] - score["cannot"] - score["not_run"]
        if not asked:
            continue
        errors = score["errors"] or {"largest": None, "median": None}
        counts = [f"{score[x]}" for x in ("raised", "missed", "invented", "far")]
        kind = gradient(score) if system["gradients"] == "exact" else system["gradients"]
        sizes = [errors["largest"], errors["median"], *([(score["allowed"] or errors)["largest"]] if rounded else [])]
        rows.append([system["name"], system["step"], f"{asked}", *counts, *map(cell, sizes), kind])
    return markdown(rows)


def families(systems: list[Numbers], group: str) -> str:
    """For each family of a group, in how many of the problems something went wrong; of trains, in how many spikes."""
    names = [key for key in systems[0]["scores"] if key.startswith(f"{group}: ")]
    rows = [["", *(name.split(": ")[1] for name in names)]]
    for system in systems:
        cells = []
        for name in names:
            score = system["scores"][name]
            asked = score["problems"] - score["cannot"] - score["not_run"]
            wrong = sum(score[x] for x in ("missed", "invented", "far"))
            if "train" in group:
                raised = f", {score['raised']} trains raised" if score["raised"] else ""
                cells.append(f"{wrong} of {score['spikes']}{raised}" if asked else "")
            else:
                cells.append(f"{wrong + score['raised']} of {asked}" if asked else "")
        if any(cells):
            rows.append([system["name"], *cells])
    return markdown(rows)


def costs(systems: list[Numbers]) -> str:
    rows = [["", "step", "forward and backward", "forward alone"]]
    for system in sorted(systems, key=lambda x: x["microseconds"] or 0):
        if system["microseconds"] is not None:
            time = f"{system['microseconds']:.{0 if system['microseconds'] > 20 else 1}f}"
            exact = system["gradients"] == "exact"
            rows.append([system["name"], system["step"], time if exact else "", "" if exact else time])
    return markdown(rows)


def figure(systems: list[Numbers], path: Path) -> None:
    """Errors of random problems over what an output takes: a line from the median to the largest."""
    shown = [x for x in systems if x["microseconds"] is not None and x["scores"]["random"]["errors"]]
    with style():
        drawn = new_figure(6.5, 4.0)
        ax = drawn.subplots()
        for k, system in enumerate(shown):
            errors, x = system["scores"]["random"]["errors"], system["microseconds"]
            look = marker_style(k)
            exact = system["gradients"] == "exact"
            ax.plot([x, x], [errors["median"], errors["largest"]], color=look["color"], linewidth=1)
            ax.plot(
                x, errors["largest"], linestyle="", markersize=6, label=system["name"].replace("`", ""),
                markerfacecolor=look["color"] if exact else "white", **look,
            )  # fmt: skip
            ax.plot(x, errors["median"], marker="_", markersize=6, color=look["color"])
        ax.axhline(2.0**-53, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)))
        ax.set(xscale="log", yscale="log", xlabel="processor time for an output [µs]")
        ax.set_ylabel(r"error of a spike time [$\tau_\mathrm{syn}$]")
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2, labelspacing=0.6)
        low, high = ax.get_ylim()
        log_ticks(ax.yaxis, low, high)
        drawn.savefig(path)


def page(numbers: Numbers) -> str:
    systems = order(numbers)
    tables = {f"{g.replace(' ', '_')}_table": results(systems, g) for g in GROUPS}
    tables |= {f"{g.replace(' ', '_')}_families": families(systems, g) for g in ("hard", "hard trains")}
    first = systems[0]["scores"]
    counts = {f"{g.replace(' ', '_')}_count": first[g]["problems"] for g in GROUPS}
    counts["beyond"] = sum(first[g]["beyond"] for g in GROUPS)
    counts["total"] = sum(first[g]["problems"] for g in GROUPS)
    lines = [json.loads(line) for line in SMALL.read_text(encoding="utf-8").splitlines()]
    counts["small"] = sum(len(x["times"]) * len(x["weights"]) for x in lines)
    dates = sorted({x["date"] for x in systems})
    values = {"dates": " to ".join(dict.fromkeys([dates[0], dates[-1]])), "figure": FIGURE}
    return Template(PAGE.read_text(encoding="utf-8")).substitute(
        tables, **counts, **values, expresses=expresses(systems), costs=costs(systems), not_run=not_run(systems)
    )


def not_run(systems: list[Numbers]) -> str:
    """Which systems were asked a part of what they can express, as they take long."""
    names = [x["name"] for x in systems if any(x["scores"][g]["not_run"] for g in GROUPS)]
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names) or "No systems"


def main() -> None:
    numbers = json.loads(NUMBERS.read_text(encoding="utf-8"))
    figure(order(numbers), DOCS / FIGURE)
    (DOCS / "exactness.md").write_text(page(numbers), encoding="utf-8")


if __name__ == "__main__":
    main()
