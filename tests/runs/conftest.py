import pytest

from firstspike.config import load_config
from firstspike.runs import start


@pytest.fixture(scope="session")
def bars_folder(tmp_path_factory):
    """A finished run; tests only read it, or add evaluations."""
    folder = tmp_path_factory.mktemp("trained") / "bars"
    start(folder, load_config("bars", ["training.epochs=12", "training.checkpoint_every=4"]), progress_bar=False)
    return folder
