"""What other classifiers reach on the spectra that the config spoken_digits encodes in spikes.

    python benchmarks/spoken.py FOLDER              # of the Free Spoken Digit Dataset: recordings 0 to 4 are test data
    python benchmarks/spoken.py FOLDER --speakers   # each speaker held out in turn

Logistic regression on spectra that are stretched to 20 frames, and a recurrent network (torch's GRU) on the frames.
"""

import argparse
import statistics
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from torch.nn.utils.rnn import pack_sequence

from firstspike.data.recordings import TEST_RECORDINGS, cochleagram, read_wav, recordings_in

CHANNELS, FRAMES, SEEDS = 48, 20, 2


class Recurrent(nn.Module):
    """A GRU whose last state decides."""

    def __init__(self, hidden: int = 100) -> None:
        super().__init__()
        self.gru, self.out = nn.GRU(CHANNELS, hidden), nn.Linear(hidden, 10)

    def forward(self, spectra: list[Tensor]) -> Tensor:
        packed = pack_sequence([x.T.float() for x in spectra], enforce_sorted=False)
        scores: Tensor = self.out(self.gru(packed)[1][0])
        return scores


def regression(spectra: list[Tensor], labels: Tensor, test: Tensor) -> float:
    same = [interpolate(x[None], FRAMES, mode="linear", align_corners=True).flatten() for x in spectra]
    values, truth, fresh = torch.stack(same).numpy(), labels.numpy(), test.numpy()
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    return float(model.fit(values[~fresh], truth[~fresh]).score(values[fresh], truth[fresh]))


def recurrent(spectra: list[Tensor], labels: Tensor, test: Tensor, seed: int, epochs: int = 20) -> float:
    torch.manual_seed(seed)
    model = Recurrent()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    train, fresh = (~test).nonzero().flatten(), test.nonzero().flatten()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for chosen in train[torch.randperm(len(train))].split(30):
            optimizer.zero_grad()
            cross_entropy(model([spectra[i] for i in chosen]), labels[chosen]).backward()
            optimizer.step()
        schedule.step()
    with torch.no_grad():
        return float((model([spectra[i] for i in fresh]).argmax(dim=1) == labels[fresh]).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--speakers", action="store_true", help="hold out each speaker in turn")
    options = parser.parse_args()
    known = recordings_in(options.folder)
    spectra = [cochleagram(*read_wav(x.path), CHANNELS) for x in known]
    labels = torch.tensor([x.digit for x in known])
    tests = {"recordings 0 to 4": [x.number < TEST_RECORDINGS for x in known]}
    if options.speakers:
        names = sorted({x.speaker for x in known})
        tests = {name: [x.speaker == name for x in known] for name in names}
    found: dict[str, list[float]] = {"logistic regression": [], "GRU": []}
    for name, held in tests.items():
        test = torch.tensor(np.array(held))
        linear = regression(spectra, labels, test)
        gru = [recurrent(spectra, labels, test, seed) for seed in range(SEEDS)]
        spread = f"{100 * statistics.fmean(gru):.1f} ± {100 * statistics.stdev(gru):.1f}"
        print(f"{name}: logistic regression {100 * linear:.1f} %, GRU {spread} %", flush=True)
        found["logistic regression"].append(linear)
        found["GRU"] += gru
    if options.speakers:
        print("mean over speakers:", {name: f"{100 * statistics.fmean(each):.1f}" for name, each in found.items()})


if __name__ == "__main__":
    main()
