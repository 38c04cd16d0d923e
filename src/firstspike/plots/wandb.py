"""A log of the training for Weights & Biases."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from firstspike.config.describer import describe
from firstspike.runs.files import write_whole
from firstspike.training import Callback, Fit, FitResult, Row


class WandbLog(Callback):
    """Logs config, metrics and results to Weights & Biases; with ``WANDB_MODE=offline`` into the run folder only.

    A resumed training continues the same log.

    Args:
        folder: the run folder; the log is named after it.
        project: of the log.

    Raises:
        ImportError: the extra ``wandb`` is not installed.
    """

    def __init__(self, folder: Path | str, project: str = "firstspike") -> None:
        if find_spec("wandb") is None:
            raise ImportError('Weights & Biases is missing. Install it: pip install "firstspike[wandb]"')
        self.folder, self.project = Path(folder), project
        self.log: Any = None

    def on_fit_start(self, fit: Fit) -> None:
        """Open the log, or continue the one that the folder names."""
        import wandb

        self.folder.mkdir(parents=True, exist_ok=True)
        mark = self.folder / "wandb.txt"
        number = mark.read_text(encoding="utf-8").strip() if mark.is_file() else wandb.util.generate_id()
        self.log = wandb.init(
            project=self.project,
            name=self.folder.resolve().name,
            id=number,
            resume="allow",
            dir=str(self.folder),
            config=describe(fit.trainer, fit).model_dump(mode="json"),
        )
        write_whole(mark, number + "\n")

    def on_epoch_end(self, fit: Fit, row: Row) -> None:
        """Log the numbers of the epoch."""
        self.log.log({name: value for name, value in row.items() if name != "epoch"}, step=int(row["epoch"]))

    def on_fit_end(self, fit: Fit, result: FitResult) -> None:
        """Log the results."""
        if result.test is not None:
            self.log.summary["test_accuracy"] = result.test.accuracy

    def close(self) -> None:
        """Write the rest."""
        if self.log is not None:
            self.log.finish(quiet=True)
