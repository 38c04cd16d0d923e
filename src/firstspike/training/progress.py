"""What a training tells while it runs."""

import sys

from tqdm import tqdm

from firstspike.training.run import Row
from firstspike.training.watchers import Watcher


class Progress(Watcher):
    """A bar over all batches, with loss, accuracy and silent fraction of the last epoch.

    Args:
        epochs: how many there are in all.
        batches: per epoch.
        done: batches that were trained before.
        show: False for a training that keeps quiet.
    """

    def __init__(self, epochs: int, batches: int, done: int = 0, show: bool = True) -> None:
        self.epochs = epochs
        self.bar = tqdm(
            total=epochs * batches,
            initial=done,
            unit="batch",
            disable=not show,
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 30,  # a log file wants few lines
        )

    def batch(self) -> None:
        """One more batch is done."""
        self.bar.update()

    def epoch(self, row: Row) -> None:
        """One more epoch is done."""
        if self.bar.disable:
            return
        silent = [value for name, value in row.items() if name.startswith("silent_")]
        self.bar.set_description(f"epoch {row['epoch']}/{self.epochs}", refresh=False)
        self.bar.set_postfix_str(
            f"loss {row['validation_loss']:.4g}, accuracy {100 * float(row['validation_accuracy']):.2f} %, "
            f"silent {'/'.join(f'{100 * float(value):.1f}' for value in silent)} %",
            refresh=False,
        )

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()
