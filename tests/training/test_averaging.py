"""Moving averages of weights: what is averaged, evaluated, saved, and resumed."""

import pytest
import torch

import firstspike as fs
from firstspike.config import load_config
from firstspike.runs import Run
from firstspike.runs.checkpoint import CheckpointError
from firstspike.training import Interrupted
from firstspike.training.averaging import WeightAverage
from trained import resume, start

DATA = [fs.data.bars(samples=n, seed=seed) for n, seed in ((60, 1), (30, 2))]
SETTINGS = ["data.train=40", "data.validation=20", "data.test=20", "training.batch_size=10", "training.epochs=4"]
SETTINGS += ["training.checkpoint_every=1", "training.weight_average=0.9"]


def network(seed=0):
    torch.manual_seed(seed)
    return fs.Network(fs.LIFLinear(9, 12), fs.LIFLinear(12, 3))


def trainer_of(networks, **settings):
    single = not isinstance(networks, list)
    optimizers = [torch.optim.Adam(net.parameters(), lr=0.02) for net in ([networks] if single else networks)]
    return fs.Trainer(networks, fs.losses.TimeCrossEntropy(), optimizers[0] if single else optimizers, **settings)


def fit(trainer, epochs=3, **settings):
    return trainer.fit(*DATA, epochs=epochs, batch_size=15, seed=5, progress_bar=False, **settings)


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


class Weights(fs.Callback):
    """The weights after every batch."""

    def __init__(self):
        self.found = []

    def on_batch_end(self, fit):
        self.found.append(weights(fit.trainer.network))


def test_is_the_average_over_the_batches_and_leaves_the_training_alone():
    plain, averaged, seen = trainer_of(network()), trainer_of(network(), weight_average=0.8), Weights()
    fit(plain)
    result = fit(averaged, callbacks=[seen])
    assert torch.equal(weights(plain.network), weights(averaged.network))
    expected = seen.found[0].clone()
    for n, now in enumerate(seen.found[1:], start=1):
        decay = min(0.8, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * now
    with averaged.averaged():
        assert torch.allclose(weights(averaged.network), expected, rtol=1e-5)
    assert torch.equal(weights(plain.network), weights(averaged.network))
    with averaged.averaged():
        twin = network()
        twin.load_state_dict(averaged.network.state_dict())
    evaluated = trainer_of(twin).evaluate(DATA[1])
    assert torch.equal(evaluated.times, result.validation.times)
    assert torch.equal(evaluated.times, averaged.evaluate(DATA[1]).times)
    assert torch.equal(evaluated.times, averaged.record(DATA[1].times).output)
    assert not torch.equal(evaluated.times, plain.evaluate(DATA[1]).times)


def test_continues_a_saved_average_bit_for_bit():
    """As versions before saved and computed it: number by number, from the averages and the trained parameters."""
    saved, net = network(0), network(1)
    expected = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    average = WeightAverage(net, 0.8)
    average.load_state_dict({"batches": 3, "trained": {name: p.detach() for name, p in saved.named_parameters()}})
    assert torch.equal(weights(net), weights(saved))
    for batch in range(3, 60):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(torch.rand(parameter.shape) - 0.5)
        average.update()
        for name, parameter in net.named_parameters():
            expected[name].lerp_(parameter.detach(), 1 - min(0.8, (1 + batch) / (10 + batch)))
    assert all(torch.equal(average.averages[name], x) for name, x in expected.items())
    state = average.state_dict()
    assert state["batches"] == 60
    assert all(torch.equal(state["trained"][name], p) for name, p in net.named_parameters())


def test_networks_side_by_side_average_as_alone():
    together = trainer_of([network(0), network(1)], weight_average=0.8)
    results = fit(together).validations
    for k, result in enumerate(results):
        alone = trainer_of(network(k), weight_average=0.8)
        found = alone.fit(*DATA, epochs=3, batch_size=15, seed=5 + k, progress_bar=False).validation
        assert torch.allclose(found.times, result.times, rtol=1e-5)
        with alone.averaged(), together.averaged():
            one, other = weights(alone.network), weights(together.members[k].network)
            assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 2])
def test_a_run_saves_averages_and_resumes_bit_for_bit(tmp_path, seeds):
    config = load_config("bars", [*SETTINGS, f"training.n_seeds={seeds}"])
    start(tmp_path / "whole", config, progress_bar=False)
    asked = iter(range(1000))
    with pytest.raises(Interrupted):
        start(tmp_path / "parts", config, progress_bar=False, stop=lambda: next(asked) >= 9)
    resume(tmp_path / "parts", progress_bar=False)
    tables = list((tmp_path / "whole").rglob("*.csv"))
    assert {"metrics.csv", "output_times.csv"} <= {table.name for table in tables}
    for table in tables:
        if table.name in ("metrics.csv", "output_times.csv"):
            assert table.read_bytes() == (tmp_path / "parts" / table.relative_to(tmp_path / "whole")).read_bytes()
    first = config.training.seed
    for folder in ["."] if seeds == 1 else [f"seed_{first}", f"seed_{first + 1}"]:
        one, other = Run(tmp_path / "whole" / folder), Run(tmp_path / "parts" / folder)
        assert torch.equal(weights(one.network), weights(other.network))
        state = one.checkpoint.state["average"]
        assert state["batches"] == 16
        assert all(torch.equal(state["trained"][k], v) for k, v in other.checkpoint.state["average"]["trained"].items())
        assert not torch.equal(one.network[0].weight, state["trained"]["0.weight"])


def test_checkpoints_without_averages_do_not_continue_with_them(tmp_path):
    fit(trainer_of(network()), epochs=1, folder=tmp_path / "plain")
    with pytest.raises(CheckpointError, match="saved with none, the training has one; see weight_average"):
        fit(trainer_of(network(), weight_average=0.9), folder=tmp_path / "plain", resume=True)


def test_is_described(tmp_path):
    fit(trainer_of(network(), weight_average=0.9), epochs=1, folder=tmp_path / "run")
    assert Run(tmp_path / "run").config.training.weight_average == 0.9


@pytest.mark.parametrize("decay", [0.0, 1.0, -1.0])
def test_wrong_decays(decay):
    with pytest.raises(ValueError, match="decay must be > 0 and < 1"):
        WeightAverage(network(), decay)
