"""``Trainer`` on objects: modules, losses and optimisers of one's own, and what torch's users expect of a trainer."""

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import firstspike as fs
from firstspike.training import CosineLR, Interrupted

pytestmark = pytest.mark.usefixtures("on_device")

DATA = [fs.data.bars(samples=n, seed=seed) for n, seed in ((60, 1), (30, 2), (30, 3))]
QUIET = {"epochs": 4, "batch_size": 15, "seed": 5, "progress_bar": False}


def network(seed=0):
    torch.manual_seed(seed)
    first = fs.LIFLinear(9, 12, weight_mean=0.6, weight_std=0.3)
    return fs.Network(first, fs.LIFLinear(12, 3, weight_mean=1.0, weight_std=0.4))


class Encoded(nn.Module):
    """Not a ``Network``: a dense layer decides when the inputs spike."""

    def __init__(self):
        super().__init__()
        self.encoder, self.spiking = nn.Linear(9, 9), fs.LIFLinear(9, 3, weight_mean=1.0, weight_std=0.3)
        self.drop = nn.Dropout(0.1)

    def forward(self, times):
        return self.spiking(self.drop(self.encoder(times)).sigmoid())


def trainer_of(net, optimizer=torch.optim.Adam, lr=0.02, loss=None, **settings):
    return fs.Trainer(net, loss or fs.losses.TimeCrossEntropy(), optimizer(net.parameters(), lr=lr), **settings)


def encoded():
    torch.manual_seed(1)
    return Encoded()


def same(one, other):
    states = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a.cpu(), b.cpu()) for a, b in states)


@pytest.mark.slow
def test_any_module_is_trained_and_continued(tmp_path):
    whole, stopped, resumed = encoded(), encoded(), encoded()
    result = trainer_of(whole).fit(*DATA[:2], test=DATA[2], folder=tmp_path / "whole", **QUIET)
    asked = iter(range(6))
    settings = QUIET | {"stop": lambda: next(asked, None) is None}
    with pytest.raises(Interrupted, match=r"epoch 2, after 2 of its batches, and saved; .* resume .*/run, or"):
        trainer_of(stopped).fit(*DATA[:2], test=DATA[2], folder=tmp_path / "run", **settings)
    trainer_of(resumed).fit(*DATA[:2], test=DATA[2], folder=tmp_path / "run", resume=True, **QUIET)
    assert same(whole, resumed)
    assert (tmp_path / "whole" / "metrics.csv").read_bytes() == (tmp_path / "run" / "metrics.csv").read_bytes()
    assert len(result.metrics["train_loss"]) == 4
    with pytest.raises(
        ValueError, match=r"'Encoded' is not in the registries; hand the network over in Python: network="
    ):
        _ = fs.Run(tmp_path / "run").network
    run = fs.Run(tmp_path / "run", network=encoded())
    assert same(run.network, resumed)
    assert run.evaluation.accuracy == result.test.accuracy


@pytest.mark.slow
def test_a_run_of_parts_of_ones_own_is_resumed_by_handing_them_over(tmp_path):
    whole, net = encoded(), encoded()
    trainer_of(whole).fit(*DATA[:2], folder=tmp_path / "whole", **QUIET | {"epochs": 6})
    trainer_of(net).fit(*DATA[:2], folder=tmp_path / "run", **QUIET)
    with pytest.raises(ValueError, match="hand the network over"):
        fs.Run(tmp_path / "run").resume(epochs=6, progress_bar=False)
    net = encoded()
    run = fs.Run(tmp_path / "run", network=net).resume(epochs=6, progress_bar=False)
    assert run.epochs == run.results["epochs"] == 6
    assert same(whole, net)


def test_a_loss_of_ones_own(tmp_path):
    def margin(times, labels):
        late = times.clamp(max=20.0)
        true = late.gather(1, labels[:, None])
        return (1 + true - late).clamp(min=0).mean()

    result = trainer_of(network(), loss=margin).fit(*DATA[:2], **QUIET | {"epochs": 30})
    assert result.validation.accuracy > 0.6
    assert result.metrics["train_loss"][-1] < result.metrics["train_loss"][0]


def test_gradients_are_clipped():
    def largest(clip):
        net = network()
        before = [p.detach().clone() for p in net.parameters()]
        optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
        trainer = fs.Trainer(net, fs.losses.TimeCrossEntropy(), optimizer, clip_grad_norm=clip)
        trainer.fit(fs.data.bars(samples=15, seed=1), **QUIET | {"epochs": 1})
        after = [p.detach() for p in net.parameters()]
        return math.sqrt(sum(float((a - b).square().sum()) for a, b in zip(before, after, strict=True)))

    assert largest(None) > 0.01
    assert largest(0.01) == pytest.approx(0.01, rel=1e-4)


def test_adamw_decays_weights():
    found = []
    for decay in (0.0, 5.0):
        net = network()
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=decay)
        fs.Trainer(net, fs.losses.TimeCrossEntropy(), optimizer).fit(DATA[0], **QUIET)
        found.append(float(net[1].weight.detach().norm()))
    assert found[1] < 0.8 * found[0]


def test_warm_up_rises_and_the_cosine_falls():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.8)
    schedule, rates = CosineLR(optimizer, 8, final=0.25, warmup=3), []
    for _ in range(9):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert np.all(np.diff(rates[3:]) < 0)
    assert rates[-1] == pytest.approx(0.2)
    with pytest.raises(ValueError, match="shorter than the 3 epochs"):
        CosineLR(optimizer, 3, warmup=3)


def test_a_training_ends_early_and_resumes_so(tmp_path):
    class Count(fs.Callback):
        epochs = 0

        def on_epoch_end(self, fit, row):
            self.epochs += 1

    def fit(net, count, **settings):
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-12)  # nothing improves
        callbacks = [fs.EarlyStopping(patience=3), count]
        trainer = fs.Trainer(net, fs.losses.TimeCrossEntropy(), optimizer)
        return trainer.fit(*DATA[:2], callbacks=callbacks, **QUIET | {"epochs": 50}, **settings)

    count = Count()
    result = fit(network(), count, folder=tmp_path / "run")
    assert result.epochs == count.epochs == 4
    assert [path.name for path in sorted((tmp_path / "run" / "checkpoints").iterdir())][-1] == "epoch_0004"
    again = Count()
    assert fit(network(), again, folder=tmp_path / "run", resume=True).epochs == 4
    assert again.epochs == 0
    callbacks = [fs.EarlyStopping(metric="loss")]
    with pytest.raises(ValueError, match="no metric 'loss'; choose one of epoch, lr, train_loss"):
        trainer_of(network()).fit(*DATA[:2], callbacks=callbacks, **QUIET)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("TimeCrossEntropy", {}), ("TimeMSE", {"correct": 0.5, "wrong": 1.5}), ("ShiftInvariantMSE", {"delta": 0.2})],
)
def test_class_weights_and_reductions_are_those_of_torch(name, settings):
    times = torch.rand(8, 3, generator=torch.Generator().manual_seed(1)) + 0.5
    labels = torch.tensor([0, 1, 2, 2, 1, 0, 0, 0])
    weight = torch.tensor([1.0, 3.0, 0.5])
    made = partial(getattr(fs.losses, name), **settings)
    each = made(reduction="none")(times, labels)
    of_sample = weight[labels]
    weighted = {how: made(weight=weight.tolist(), reduction=how)(times, labels) for how in ("none", "sum", "mean")}
    torch.testing.assert_close(weighted["none"], each * of_sample)
    torch.testing.assert_close(weighted["sum"], (each * of_sample).sum())
    torch.testing.assert_close(weighted["mean"], (each * of_sample).sum() / of_sample.sum())
    torch.testing.assert_close(made()(times, labels), each.mean())


def test_cross_entropy_with_weights_is_that_of_torch():
    times, labels = torch.rand(8, 3), torch.tensor([0, 1, 2, 2, 1, 0, 0, 0])
    weight = torch.tensor([1.0, 3.0, 0.5])
    for how in ("none", "sum", "mean"):
        found = fs.losses.TimeCrossEntropy(xi=0.5, weight=weight.tolist(), reduction=how)(times, labels)
        expected = nn.CrossEntropyLoss(weight=weight, reduction=how)(-times / 0.5, labels)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("weights", [[1.0, 1.0], [1.0] * 4])
def test_class_weights_for_other_classes_are_refused(weights):
    trainer = trainer_of(network(), loss=fs.losses.TimeCrossEntropy(weight=weights))
    with pytest.raises(ValueError, match=f"weight: expected one for each of 3 outputs, got {len(weights)}"):
        trainer.fit(DATA[0], **QUIET)


def test_several_networks_give_what_each_gives_alone():
    together = [network(seed) for seed in (0, 1)]
    optimizers = [torch.optim.Adam(net.parameters(), lr=0.02) for net in together]
    fs.Trainer(together, fs.losses.TimeCrossEntropy(), optimizers).fit(*DATA[:2], **QUIET)
    for k in (0, 1):
        alone = network(k)
        trainer_of(alone).fit(*DATA[:2], **QUIET | {"seed": QUIET["seed"] + k})
        for one, other in zip(alone.parameters(), together[k].parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda net: trainer_of(net, loss=fs.losses.TimeCrossEntropy(reduction="none")), "got 'none'"),
        (lambda net: trainer_of(net, loss=nn.CrossEntropyLoss()), r"use fs\.losses\.TimeCrossEntropy\(\)"),
        (lambda net: trainer_of(net, silent=fs.SilentNeurons([0.5])), "has 1 limits, the network has 2 LIF layers"),
        (lambda net: trainer_of(encoded(), silent=fs.SilentNeurons(0.5)), r"SilentNeurons needs an fs\.Network"),
        (
            lambda net: trainer_of(net, regularizers=fs.losses.SilentPeak(1.0)),
            r"in a list: write regularizers=\[SilentPeak\(",
        ),
        (lambda net: fs.Trainer([], fs.losses.TimeCrossEntropy(), []), "at least one network"),
        (lambda net: trainer_of(net).fit(DATA[0], resume=True, **QUIET), "needs the folder"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(network())


class Head(nn.Module):
    """Scores from the values of a readout."""

    def __init__(self):
        super().__init__()
        self.spiking = fs.Network(fs.LIFLinear(9, 12, weight_mean=0.6, weight_std=0.3), fs.IntegralReadout(12, 6))
        self.scores = nn.Linear(6, 3)

    def forward(self, times):
        return self.scores(self.spiking(times))


class Negated(nn.Module):
    """Scores from spike times, by arithmetic."""

    def __init__(self):
        super().__init__()
        self.spiking = network()

    def forward(self, times):
        return -self.spiking(times).clamp(max=10.0)


def own_cross_entropy(values, labels):
    return nn.functional.cross_entropy(values, labels)


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.MultiMarginLoss(), own_cross_entropy])
@pytest.mark.parametrize("kind", ["head", "in order", "negated"])
def test_a_module_that_ends_in_values_is_decided_by_the_largest(kind, loss):
    torch.manual_seed(0)
    made = Negated() if kind == "negated" else Head()
    net = nn.Sequential(made.spiking, made.scores, nn.Dropout(0.0)) if kind == "in order" else made
    if kind == "negated" and loss is own_cross_entropy:
        net.gives = "values"  # nothing else tells
    trainer = trainer_of(net, loss=loss, lr=0.05)
    stopping = fs.EarlyStopping(40, restore_best=True)
    result = trainer.fit(*DATA[:2], callbacks=[stopping], **QUIET | {"epochs": 40, "seed": 1})
    held = DATA[1].to(trainer.device)
    scores = net(held.times)
    true = float((scores.argmax(-1) == held.labels).float().mean())
    assert true > 0.8
    assert result.validation.accuracy == pytest.approx(true)
    assert result.validation.readout
    assert max(result.metrics["validation_accuracy"]) == pytest.approx(true)
    assert torch.equal(result.validation.predictions, scores.argmax(-1))


class Own(nn.Module):
    """Spike times by weights of one's own, which nothing tells from values."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(0.5 + 0.3 * torch.rand(3, 9))

    def forward(self, times):
        return fs.first_spike_time(times, self.weight, fs.LIF())


@pytest.mark.parametrize("wrap", [nn.Sequential, lambda module: module])
def test_a_module_of_ones_own_is_decided_by_the_earliest(wrap):
    trainer = trainer_of(wrap(Own()), loss=lambda times, labels: times.clamp(max=10.0).mean())
    found = trainer.evaluate(DATA[1])
    assert torch.equal(found.predictions, found.times.argmin(-1))
    assert not found.readout


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), fs.losses.TimeCrossEntropy(), fs.losses.ReadoutCrossEntropy()])
def test_torchs_sequence_of_layers_gives_what_its_last_one_does(loss):
    net = nn.Sequential(fs.LIFLinear(9, 3))
    if isinstance(loss, nn.CrossEntropyLoss):
        with pytest.raises(ValueError, match=r"makes true spikes the last; use fs\.losses\.TimeCross"):
            trainer_of(net, loss=loss)
        return
    evaluation = trainer_of(net, loss=loss).evaluate(DATA[1])
    assert evaluation.readout == isinstance(loss, fs.losses.ReadoutCrossEntropy)  # a loss knows what it reads


def test_an_optimizer_of_another_network_is_refused():
    net, loss = network(), fs.losses.TimeCrossEntropy()
    message = "optimizer: it has none of the network's parameters"
    with pytest.raises(ValueError, match=message):
        fs.Trainer(net, loss, torch.optim.Adam(network().parameters()))
    nets = [network(), network()]
    with pytest.raises(ValueError, match=message):
        fs.Trainer(nets, loss, [torch.optim.Adam(nets[0].parameters()) for _ in nets])
    own = nn.Parameter(torch.zeros(1))
    fs.Trainer(net, loss, torch.optim.Adam([{"params": [net[1].weight]}, {"params": [own]}]))
    net[0].weight.requires_grad_(False)
    fs.Trainer(net, loss, torch.optim.Adam(net.parameters()))
    fs.Trainer(net.requires_grad_(False), loss, torch.optim.Adam(network().parameters()))


def test_epochs_are_a_total(tmp_path):
    trainer = trainer_of(network())
    trainer.fit(*DATA[:2], **QUIET)
    once = copy.deepcopy(trainer.network)
    with pytest.warns(UserWarning, match="4 epochs are done already, nothing is trained; .* 8 trains 4 more"):
        again = trainer.fit(*DATA[:2], **QUIET)
    assert same(once, trainer.network)
    assert again.metrics == {}
    assert again.validation.accuracy == trainer.evaluate(DATA[1]).accuracy
    assert len(trainer.fit(*DATA[:2], **QUIET | {"epochs": 6}).metrics["epoch"]) == 2
    with pytest.raises(ValueError, match="6 epochs are done already; epochs is their total: 10 trains 4 more"):
        trainer.fit(*DATA[:2], **QUIET)
    trainer_of(network()).fit(*DATA[:2], folder=tmp_path / "run", **QUIET)
    trainer_of(network()).fit(*DATA[:2], folder=tmp_path / "run", resume=True, **QUIET)  # a whole run: no warning


def test_silent_is_not_switched_off_by_false():
    with pytest.raises(TypeError, match=r"got False; fs\.SilentNeurons\(limits=1\) is off"):
        fs.Trainer(network(), fs.losses.TimeCrossEntropy(), torch.optim.Adam(network().parameters()), silent=False)


@pytest.mark.parametrize("make", [TensorDataset, lambda *arrays: arrays])
def test_other_types_of_data_are_refused(make, tmp_path):
    trainer, other = trainer_of(network()), make(DATA[0].times, DATA[0].labels)
    message = r"expected fs\.data\.SpikeData, got (TensorDataset|tuple)\. .* fs\.data\.split\(times, labels\)"
    for call in (
        lambda: trainer.fit(other, folder=tmp_path / "run", **QUIET),
        lambda: trainer.fit(DATA[0], other, **QUIET),
        lambda: trainer.evaluate(other),
    ):
        with pytest.raises(TypeError, match=message):
            call()
    assert not (tmp_path / "run").exists()


def test_inputs_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"LIFLinear\(9, 12\) expects 9 inputs, got 5:"):
        trainer_of(network()).fit(fs.data.SpikeData(torch.rand(4, 5), [0, 1, 2, 0], "abc"), **QUIET)


def test_there_is_no_best_accuracy_without_validation_data():
    assert all(map(math.isnan, trainer_of(network()).fit(DATA[0], **QUIET).best_validation_accuracy))


@pytest.mark.slow
@pytest.mark.host
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # by dynamo itself
@pytest.mark.parametrize("recurrent", [False, True])
def test_compiled_steps_learn_the_same_and_resume_bit_for_bit(recurrent, tmp_path):
    def net():
        torch.manual_seed(0)
        if not recurrent:
            return network()
        hidden = fs.LIFRecurrent(9, 12, max_spikes=20, window_spikes=20, duration=4.0)
        return fs.Network(hidden, fs.FirstSpike(), fs.LIFLinear(12, 3))

    def trained(compile, **settings):
        found = net()
        trainer = trainer_of(found, silent=fs.SilentNeurons(limits=0.3), compile=compile)
        return trainer.fit(*DATA[:2], **(QUIET | {"batch_size": 25} | settings)), found

    plain, expected = trained(False)
    compiled, whole = trained(True)
    torch.testing.assert_close(whole.state_dict(), expected.state_dict(), rtol=1e-4, atol=1e-5)
    assert compiled.metrics["train_loss"] == pytest.approx(plain.metrics["train_loss"], rel=1e-4)
    trained(True, epochs=2, folder=tmp_path / "run")
    _, resumed = trained(True, folder=tmp_path / "run", resume=True)
    assert same(resumed, whole)


@pytest.mark.parametrize("name", ["epochs", "batch_size"])
def test_numbers_out_of_range(name):
    net = fs.Network(fs.LIFLinear(2, 2))
    trainer = fs.Trainer(net, fs.losses.TimeCrossEntropy(), torch.optim.Adam(net.parameters()))
    with pytest.raises(ValueError, match=f"{name} must be > 0"):
        trainer.fit(fs.data.bars(), **{"epochs": 1, name: 0})


def test_what_is_printed():
    one, other = network(), network(1)
    loss = fs.losses.TimeCrossEntropy(xi=0.1)
    assert repr(trainer_of(one, loss=loss)) == "Trainer(Network, TimeCrossEntropy(xi=0.1), Adam)"
    optimizers = [torch.optim.SGD(net.parameters()) for net in (one, other)]
    assert repr(fs.Trainer([one, other], loss, optimizers)) == "Trainer(2 networks, TimeCrossEntropy(xi=0.1), SGD)"


def test_a_stopped_training_says_how_to_continue():
    net, asked = network(), iter(range(2))
    trainer = trainer_of(net)
    with pytest.raises(Interrupted, match=r"stopped in epoch 1, after 2 of its batches; .* fit of the same trainer"):
        trainer.fit(DATA[0], **QUIET | {"stop": lambda: next(asked, None) is None})
    assert trainer.fit(DATA[0], **QUIET).epochs == 4
    whole = network()
    trainer_of(whole).fit(DATA[0], **QUIET)
    assert same(net, whole)


def test_an_optimiser_of_many_evaluations_is_refused():
    with pytest.raises(ValueError, match=r"LBFGS computes the loss several times a step.*torch\.optim\.Adam"):
        trainer_of(network(), torch.optim.LBFGS)
