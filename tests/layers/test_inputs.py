import copy
import math
import pickle

import pytest
import torch

from firstspike import BiasSpikes, Multiplex

INF = math.inf


@pytest.mark.parametrize("lead", [(), (3,), (0,), (2, 3)])
def test_bias_is_appended(lead):
    times = torch.rand(*lead, 4)
    out = BiasSpikes([0.9, 0.1])(times)
    assert out.shape == (*lead, 6)
    assert torch.equal(out[..., :4], times)
    assert torch.equal(out[..., 4:], torch.tensor([0.9, 0.1]).expand(*lead, 2))


def test_bias_has_the_type_of_its_input():
    assert BiasSpikes([0.9])(torch.rand(2, 3, dtype=torch.float64)).dtype == torch.float64
    assert BiasSpikes([0.9], dtype=torch.float64)(torch.rand(2, 3)).dtype == torch.float32


def test_bias_in_double_precision_is_not_rounded():
    layer = BiasSpikes([0.9], dtype=torch.float64)
    assert layer(torch.rand(1, 2, dtype=torch.float64))[0, -1].item() == 0.9


@pytest.mark.parametrize("times", [[], [INF], [math.nan], [[0.9]], [-INF, 0.0]])
def test_wrong_bias(times):
    with pytest.raises(ValueError, match="times must be a list of finite numbers, got"):
        BiasSpikes(times)


def test_bias_gradient_and_observed():
    times = torch.tensor([[0.1, INF, 0.3], [0.4, 0.7, INF]], requires_grad=True)
    observed = torch.tensor([[0.3, INF, 0.2, 0.95], [0.5, INF, 0.8, 0.97]])
    out = BiasSpikes([0.9])(times, observed)
    assert torch.equal(out, observed)
    out.backward(torch.tensor([[1.0, 2.0, 4.0, 100.0], [8.0, 16.0, 32.0, 100.0]]))
    assert times.grad.tolist() == [[1, 0, 4], [8, 0, 0]]


def test_observed_is_returned_bit_for_bit():
    generator = torch.Generator().manual_seed(0)
    times = (torch.rand(50, 7, generator=generator) * 3).requires_grad_()
    observed = torch.rand(50, 14, generator=generator) * 1e3
    assert torch.equal(Multiplex(2)(times, observed), observed)
    assert torch.equal(BiasSpikes([0.3] * 7)(times, observed), observed)


@pytest.mark.parametrize("layer", [BiasSpikes([0.9] * 3), Multiplex(2)])
def test_observed_of_a_wrong_shape(layer):
    with pytest.raises(ValueError, match=r"observed must have the shape \(5, 6\), got \(5, 3\)"):
        layer(torch.rand(5, 3), torch.rand(5, 3))


@pytest.mark.parametrize("lead", [(), (3,), (0,), (2, 3)])
def test_copies_stand_side_by_side(lead):
    times = torch.rand(*lead, 2)
    out = Multiplex(3)(times)
    assert out.shape == (*lead, 6)
    assert torch.equal(out, times[..., [0, 0, 0, 1, 1, 1]])


def test_gradient_of_copies_is_their_sum():
    times = torch.tensor([[0.1, INF]], requires_grad=True)
    out = Multiplex(2)(times)
    out.backward(torch.tensor([[1.0, 2.0, 4.0, 8.0]]))
    assert times.grad.tolist() == [[3, 12]]
    times.grad = None
    observed = torch.tensor([[0.2, INF, 0.3, INF]])
    Multiplex(2)(times, observed).backward(torch.tensor([[1.0, 2.0, 4.0, 8.0]]))
    assert times.grad.tolist() == [[1, 0]]


@pytest.mark.parametrize("copies", [0, -1])
def test_wrong_number_of_copies(copies):
    with pytest.raises(ValueError, match=f"copies must be > 0 and <= 1000000, got {copies}"):
        Multiplex(copies)


def test_sizes_state_and_copies():
    bias, multiplex = BiasSpikes([0.9, 0.25]), Multiplex(3)
    assert bias.output_size(4) == 6
    assert multiplex.output_size(4) == 12
    assert list(bias.state_dict()) == ["times"]
    assert not list(bias.parameters())
    assert not multiplex.state_dict()
    assert repr(bias) == "BiasSpikes(0.9, 0.25)"
    assert repr(multiplex) == "Multiplex(3)"
    times = torch.rand(2, 4)
    for layer in (bias, multiplex):
        for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert torch.equal(twin(times), layer(times))
    assert BiasSpikes([0.9], device="meta").times.device.type == "meta"
