"""Write the report of a run or a sweep."""

from collections.abc import Iterator
from pathlib import Path

from firstspike.plots import PLOTS
from firstspike.plots.run_data import UNAVAILABLE, NotApplicable, data_name, left_out
from firstspike.reports.details import details
from firstspike.reports.facts import making, seeds_table, summary
from firstspike.reports.page import Picture, render
from firstspike.reports.sweep import read_sweep, sweep_page
from firstspike.runs import Run
from firstspike.runs.files import write_whole
from firstspike.text import needed

FIGURES = {
    "loss_and_error": "Training",
    "output_times": "Output spike times by class",
    "margins": "Inputs that decide",
}
"""Figures in a page, with their headings."""
BUDGET = 1_000_000
"""Numbers of the samples in a file, of all seeds together: about four megabytes."""


def write_report(
    source: Run | Path | str, out: Path | str | None = None, checkpoint: str | None = None, runs: bool = False
) -> Path:
    """Write the report of a run, finished or not, with one or several seeds, or of a sweep.

    Args:
        source: a run, or its folder; or the folder of a sweep, or of any runs.
        out: the file, by default ``report.html`` in the folder, at a chosen checkpoint ``report_at_CHECKPOINT.html``.
        checkpoint: of a run in a folder, see ``fs.Run``.
        runs: of a sweep, first write a report into each of its runs.

    Returns:
        The file.

    Raises:
        FileNotFoundError: neither a run nor a sweep is there.
        ValueError: no such checkpoint, or a checkpoint of a sweep.
        ImportError: the extra ``report`` is not installed.
        OSError: no space, no permission.
    """
    needed("jinja2", "report", "Jinja2")
    needed("plotly", "report", "Plotly")
    if not isinstance(source, Run) and (Path(source) / "config.yaml").is_file():
        source = Run(source, checkpoint)
    if isinstance(source, Run):
        name = f"report{source.on_other}{source.at_chosen}.html"
        path = source.folder / name if out is None else Path(out)
        write_whole(path, run_page(source))
        return path
    source = Path(source)
    table, drawn = read_sweep(source)
    if not table.rows:
        raise FileNotFoundError(f"{source} is neither a run nor a sweep: no config.yaml is in it or in its folders")
    if checkpoint is not None:
        raise ValueError("--checkpoint is for the report of one run, not for that of a sweep")
    for row in table.rows if runs else ():
        if (Path(str(row["folder"])) / "config.yaml").is_file():
            write_report(str(row["folder"]))
    path = source / "report.html" if out is None else Path(out)
    write_whole(path, sweep_page(source.resolve().name, table, path.parent, drawn))
    return path


def pictures(run: Run, notes: list[str]) -> Iterator[Picture]:
    """The figures of a run or, if they do not apply to several seeds, of each seed. ``notes`` get the reasons."""
    regression = any("accuracy" not in part for part in map(run.results.get, ("validation", "test")) if part)
    for name, title in (FIGURES | ({"confusion": "Predictions"} if regression else {})).items():
        for member, of in [(None, run), *enumerate(run.seeds)]:
            try:
                yield Picture.of(title, PLOTS[name], PLOTS[name](of), member)
                if of is run:
                    break
            except Exception as error:
                reason = left_out(f"figure {name}", error)
                if of is not run or not run.seeds or not isinstance(error, NotApplicable):
                    notes.append(f"{title[0].lower()}{title[1:]}: {reason}")


def run_page(run: Run, budget: int = BUDGET) -> str:
    """The page of a run, with at most ``budget`` numbers for its samples."""
    members, kind = run.seeds or (run,), run.config.substrate.kind
    notes: list[str] = []
    drawn = list(pictures(run, notes))
    found = [details(member, budget // len(members)) for member in members]
    try:
        changed = run.data_changed
    except UNAVAILABLE:  # the notes have the reason
        changed = ""
    return render(
        "run",
        {"unit": run.config.neuron.unit or run.config.neuron.time_unit, "substrate": kind, "members": found},
        title=run.folder.resolve().name,
        kind=data_name(run),
        summary=summary(run),
        making=making(run),
        substrate=kind,
        changed=changed,
        config=run.config.to_yaml(),
        seeds=[member["name"] for member in found] if len(found) > 1 else [],
        seeds_table=seeds_table(run),
        parts={name for member in found for name in member},
        pictures=drawn,
        notes=list(dict.fromkeys([*notes, *(note for member in found for note in member["notes"])])),
    )
