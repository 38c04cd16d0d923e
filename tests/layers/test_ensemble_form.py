"""Networks that differ in more than the values of their parameters are no ensemble, whatever they print."""

import pytest
import torch
from torch import Tensor, nn

from firstspike import (
    LIF,
    BiasSpikes,
    Concatenate,
    Delay,
    DelayRule,
    Earliest,
    IntegralReadout,
    LIFConv2d,
    LIFLinear,
    LIFRecurrent,
    LIFSpikeTrains,
    MaximumReadout,
    MembraneReadout,
    Multiplex,
    Network,
    SpikeDropout,
    Trainer,
)
from firstspike.layers import EarliestPool2d
from firstspike.layers.ensembles import Ensemble
from firstspike.losses import TimeCrossEntropy
from firstspike.substrates import Exact
from firstspike.training.engines import SideBySide, engine_for


def recurrent(**options):
    return LIFRecurrent(3, 3, 5, **{"duration": 4.0} | options)


def membrane(**options):
    return MembraneReadout(3, 2, **{"time": 3.0} | options)


DIFFER = {
    "LIFLinear max_weight_grad": (LIFLinear, (3, 3), {"max_weight_grad": 0.1}),
    "LIFLinear backend": (LIFLinear, (3, 3), {"backend": "reference"}),
    "LIFLinear tau_mem is": (LIFLinear, (3, 3), {"neuron": LIF(2.0)}),
    "LIFLinear trainable": (LIFLinear, (3, 3), {"trainable": ["tau_mem"]}),
    "LIFLinear delay_rule": (LIFLinear, (3, 3), {"delay": DelayRule()}),
    "LIFConv2d max_weight_grad": (LIFConv2d, ((1, 3, 3), 2, 3), {"max_weight_grad": 0.1}),
    "LIFConv2d stride": (LIFConv2d, ((1, 3, 3), 2, 3), {"stride": 2}),
    "EarliestPool2d": (EarliestPool2d, ((1, 4, 4), 2), {"stride": 1}),
    "Delay rule": (Delay, (3,), {"rule": DelayRule("softplus")}),
    "BiasSpikes times": (BiasSpikes, ([0.5],), {"dtype": torch.float64}),
    "SpikeDropout p": (SpikeDropout, (), {"p": 0.2}),
    "LIFSpikeTrains overflow": (LIFSpikeTrains, (3, 3, 5), {"overflow": "drop"}),
    "LIFSpikeTrains max_weight_grad": (LIFSpikeTrains, (3, 3, 5), {"max_weight_grad": 0.1}),
    "LIFSpikeTrains reset": (LIFSpikeTrains, (3, 3, 5), {"neuron": LIF(reset=-0.1)}),
    "LIFSpikeTrains refractory": (LIFSpikeTrains, (3, 3, 5), {"neuron": LIF(refractory=0.1)}),
    "LIFRecurrent window_spikes": (recurrent, (), {"window_spikes": 2}),
    "LIFRecurrent duration": (recurrent, (), {"duration": 5.0}),
    "IntegralReadout tau": (IntegralReadout, (3, 2), {"tau": 10.000001}),
    "MembraneReadout time": (membrane, (), {"time": 4.0}),
    "MaximumReadout tau_mem": (MaximumReadout, (3, 2), {"neuron": LIF(torch.full((2,), 2.0))}),
}


@pytest.mark.parametrize("case", DIFFER)
def test_each_argument_counts(case):
    make, sizes, options = DIFFER[case]
    kind, _, argument = case.partition(" ")
    one, other = make(*sizes), make(*sizes, **options)
    Ensemble([Network(one), Network(one)])
    for members in ((one, other), (other, one)):
        with pytest.raises(ValueError, match=rf"member 1 .*layer 0.* \({kind}\).*{argument}"):
            Ensemble([Network(layer) for layer in members])


def test_the_layer_is_named():
    one, other = (
        Network(LIFLinear(3, 4), LIFLinear(4, 4), Earliest(4, delay=DelayRule(scale=x), over=1)) for x in (1.0, 2.0)
    )
    with pytest.raises(ValueError, match=r"layer 2.* \(Earliest\).*delay.*scale=2\.0.*scale=1\.0"):
        Ensemble([one, other])
    with pytest.raises(ValueError, match="other layers"):
        Ensemble([Network(Multiplex(2)), Network(Multiplex(2), Multiplex(1))])
    with pytest.raises(ValueError, match=r"layer 0 \(Multiplex\).*copies is 3, expected 2"):
        Ensemble([Network(Multiplex(2)), Network(Multiplex(3))])


def test_buffers_in_one_member_only():
    thresholds = torch.linspace(0.5, 1.5, 2000)
    one, other = (LIFLinear(2, 2000, LIF(threshold=x), weight_mean=1.0, weight_std=0.1) for x in (thresholds, 1.0))
    for members in ((one, other), (other, one)):
        with pytest.raises(ValueError, match=r"member 1 .*layer 0 \(LIFLinear\).*threshold"):
            Ensemble([Network(layer) for layer in members])
    moved = LIFLinear(2, 2000, LIF(threshold=thresholds + 0.01 * (torch.arange(2000) == 1000)))
    with pytest.raises(ValueError, match=r"member 1 .*layer 0 \(LIFLinear\).*threshold"):
        Ensemble([Network(one), Network(moved)])


def test_fixed_parameters_differ_in_values_but_not_in_whether_they_learn():
    one, other = Network(Delay(3)), Network(Delay(3, DelayRule(trainable=False)))
    with pytest.raises(ValueError, match=r"layer 0 \(Delay\)"):
        Ensemble([one, other])
    fixed = [LIFLinear(3, 2).requires_grad_(k == 0) for k in range(2)]
    with pytest.raises(ValueError, match=r"layer 0 \(LIFLinear\).*weight"):
        Ensemble([Network(layer) for layer in fixed])


def test_how_parameters_begin_may_differ():
    members = [
        Network(
            LIFSpikeTrains(3, 4, 5, LIF(mem), trainable=["tau_mem"], weight_mean=mean, weight_std=0.1, overflow="drop"),
            LIFRecurrent(4, 4, 5, 3.0, recurrent_mean=mean, recurrent_std=mean, overflow="drop"),
        )
        for mem, mean in ((1.5, 0.5), (2.5, 0.7))
    ]
    times = torch.rand(4, 3)
    torch.testing.assert_close(Ensemble(members)(times), torch.stack([net(times) for net in members]))


class Scaled(nn.Module):
    """A layer of one's own."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self._scale = scale

    def output_size(self, inputs: int) -> int:
        return inputs

    def forward(self, times: Tensor, observed: Tensor | None = None) -> Tensor:
        return times * self._scale


def test_layers_of_ones_own():
    Ensemble([Network(Scaled(2.0)), Network(Scaled(2.0))])
    with pytest.raises(ValueError, match=r"layer 0 \(Scaled\).*scale is 3.0, expected 2.0"):
        Ensemble([Network(Scaled(2.0)), Network(Scaled(3.0))])


def test_an_earlier_layer_of_the_same_sizes():
    def net(**options):
        return Network(LIFLinear(3, 3), Concatenate(3, over=1, **options), LIFLinear(6, 2))

    with pytest.raises(ValueError, match=r"layer 1.* \(Concatenate\).*delay"):
        Ensemble([net(delay=1.0), net(delay=2.0)])


def test_a_training_of_networks_that_differ_gives_each_its_own_gradient():
    torch.manual_seed(0)
    networks = [Network(LIFLinear(5, 3, max_weight_grad=bound)) for bound in (None, 1e-6)]
    trainer = Trainer(networks, TimeCrossEntropy(), [torch.optim.SGD(net.parameters(), lr=0.1) for net in networks])
    assert not isinstance(engine_for(trainer.members, trainer.objective), SideBySide)


class Shifted(Exact):
    """A substrate of one's own, with a setting."""

    def __init__(self, shift):
        self.shift = shift

    def identity(self):
        return {"kind": "shifted", "shift": self.shift}


@pytest.mark.parametrize("shift", [1.0, 2.0])
def test_substrates_with_other_settings_take_turns(shift):
    networks = [Network(LIFLinear(5, 3)) for _ in range(2)]
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.1) for net in networks]
    trainer = Trainer(networks, TimeCrossEntropy(), optimizers, substrate=[Shifted(1.0), Shifted(shift)])
    assert isinstance(engine_for(trainer.members, trainer.objective), SideBySide) == (shift == 1.0)
