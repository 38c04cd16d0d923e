"""How exact simulators are: writes ``docs/exactness.md`` and its figure from ``results.json``.

nox -s exactness -- SET/exactness.jsonl.gz --save results.json             # asks all systems, about an hour
nox -s exactness -- SET/exactness.jsonl.gz --save results.json --seconds   # time for an output. Nothing else may run
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

from firstspike.plots.look import COLOURS, GREY, log_ticks, new_figure, style  # noqa: E402

NUMBERS, PAGE, DOCS = HERE / "results.json", HERE / "exactness.template.md", HERE.parents[1] / "docs"
SMALL = HERE / "small.jsonl"
FIGURE = "exactness.png"
NO_BREAK = "\u2011"  # a hyphen at which no line of a narrow column ends
Numbers = dict[str, Any]
GROUPS = ("random", "hard", "trains", "hard trains", "other neurons")
DARK = "#444444"
BESIDE = {
    "spikegd": (0, 10, "left"),
    "exact-snn-nn (events)": (-7, 0, "right"),
    "NEST iaf_psc_exp_ps": (-7, 0, "right"),
    "Brian2 (exact integration)": (0, 14, "center"),
    "Norse lif_feed_forward_step": (-7, -4, "right"),
}
"""Where the names of some systems are in the figure, in points from their symbol, and their alignment."""


def order(numbers: Numbers) -> list[Numbers]:
    """Systems, by how many of all problems they can express."""
    return sorted(numbers.values(), key=lambda x: sum(x["scores"][g]["cannot"] for g in GROUPS))


def cell(x: Any, missing: str = "") -> str:
    """A size with one digit."""
    if x is None or x == 0 or 0.095 <= x < 99.5:
        return missing if x is None else f"{x:.1g}" if x < 1 else f"{x:.0f}"
    mantissa, exponent = f"{x:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}".replace("-", NO_BREAK)


def gradient(score: Numbers) -> str:
    """The larger of the errors with respect to weights and to times."""
    if any(f"{name}_not_finite" in score for name in ("by_weight", "by_time")):
        return "not finite"
    return cell(max(score[name]["largest"] for name in ("by_weight", "by_time") if score[name]))


def wrong(score: Numbers, trains: bool) -> str:
    """The percentage of first spikes, or of the spikes of trains, that are missed, invented, far off or an error."""
    asked = score["problems"] - score["cannot"] - score["not_run"]
    if not asked:
        return ""
    count = sum(score[x] for x in ("missed", "invented", "far"))
    percent = 100 * count / score["spikes"] if trains else 100 * (count + score["raised"]) / asked
    raised = f", {score['raised']} raised" if trains and score["raised"] else ""
    return f"{percent:.{0 if percent >= 1 else 1}{'f' if percent >= 1 else 'g'}}{raised}"


def overview(systems: list[Numbers]) -> str:
    """A row for each system: which problems it can express, how many spikes are wrong, errors and costs."""
    groups = [g for g in GROUPS if g not in ("hard", "other neurons")]
    rows = [["", "asked", *groups, "error", "gradient", "µs"]]
    for system in systems:
        scores = system["scores"]
        asked = 1 - sum(scores[g]["cannot"] for g in GROUPS) / sum(scores[g]["problems"] for g in GROUPS)
        failed = [wrong(scores[g], "train" in g) for g in groups]
        error = cell(scores["random"]["errors"]["largest"])
        kind = gradient(scores["random"]) if system["gradients"] == "exact" else system["gradients"]
        time = system["microseconds"]
        cost = "" if time is None else f"{time:.{0 if time > 20 else 1}f}"
        rows.append([system["name"], f"{100 * asked:.0f}", *failed, error, kind, cost])
    return markdown(rows)


def families(systems: list[Numbers]) -> str:
    """The percentage of wrong hard problems, in total and of families that are hard for several systems."""
    names = [key for key in systems[0]["scores"] if key.startswith("hard")]
    names = [key for key in names if "trains" not in key]
    names = [key for key in names if sum(wrong(x["scores"][key], False) not in ("", "0") for x in systems) > 1]
    rows = [["", *(name.removeprefix("hard: ").replace("hard", "all") for name in names), "error"]]
    for x in systems:
        error = cell(x["scores"]["hard"]["allowed"]["largest"])
        rows.append([x["name"], *(wrong(x["scores"][name], False) for name in names), error])
    return markdown(rows)


def figure(systems: list[Numbers], path: Path) -> None:
    """Errors of random problems over the time for an output: a line from the median to the largest."""
    shown = [x for x in systems if x["microseconds"] is not None and x["scores"]["random"]["errors"]]
    own = iter(COLOURS)
    with style():
        drawn = new_figure(7.5, 4.4)
        ax = drawn.subplots()
        for system in shown:
            errors, x = system["scores"]["random"]["errors"], system["microseconds"]
            name = system["name"].replace("`", "")
            colour = next(own) if name.startswith("firstspike") else DARK
            face = colour if system["gradients"] == "exact" else "white"
            ax.plot([x, x], [errors["median"], errors["largest"]], color=colour, linewidth=1)
            ax.plot(x, errors["largest"], "o", color=colour, markerfacecolor=face)
            ax.plot(x, errors["median"], marker="_", markersize=6, color=colour)
            dx, dy, side = BESIDE.get(name, (7, 0, "left"))
            place: Any = {"xytext": (dx, dy), "textcoords": "offset points", "ha": side, "va": "center"}
            ax.annotate(name.replace(" (", "\n("), (x, errors["largest"]), color=colour, fontsize=7.5, **place)
        ax.axhline(2.0**-53, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)))
        ax.set(xscale="log", yscale="log", xlim=(3, 30_000), xlabel="processor time for an output [µs]")
        ax.set_ylabel(r"error of a spike time [$\tau_\mathrm{syn}$]")
        low, high = ax.get_ylim()
        log_ticks(ax.yaxis, low, high)
        drawn.savefig(path)


def page(numbers: Numbers) -> str:
    systems = order(numbers)
    first = systems[0]["scores"]
    counts = {f"{g.replace(' ', '_')}_count": first[g]["problems"] for g in GROUPS}
    counts["beyond"] = sum(first[g]["beyond"] for g in GROUPS)
    counts["total"] = sum(first[g]["problems"] for g in GROUPS)
    lines = [json.loads(line) for line in SMALL.read_text(encoding="utf-8").splitlines()]
    counts["small"] = sum(len(x["times"]) * len(x["weights"]) for x in lines)
    dates = sorted({x["date"] for x in systems})
    values = {"dates": " to ".join(dict.fromkeys([dates[0], dates[-1]])), "figure": FIGURE}
    tables = {"overview": overview(systems), "families": families(systems)}
    return Template(PAGE.read_text(encoding="utf-8")).substitute(tables, **counts, **values, not_run=not_run(systems))


def not_run(systems: list[Numbers]) -> str:
    """The systems that were asked only some problems, because they take long."""
    names = [x["name"].split()[0] for x in systems if any(x["scores"][g]["not_run"] for g in GROUPS)]
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names) or "No systems"


def main() -> None:
    numbers = json.loads(NUMBERS.read_text(encoding="utf-8"))
    figure(order(numbers), DOCS / FIGURE)
    (DOCS / "exactness.md").write_text(page(numbers), encoding="utf-8")


if __name__ == "__main__":
    main()
