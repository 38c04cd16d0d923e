"""What ``first_spike_time`` refuses: types, shapes and values."""

import math

import pytest
import torch

from firstspike import LIF, first_spike_time, spike_trains

pytestmark = pytest.mark.usefixtures("poisoned_memory", "on_device")

INF = math.inf
TIMES, WEIGHT = torch.zeros(2, 3), torch.ones(4, 3)


def test_cpu_backend_on_another_device():
    with pytest.raises(ValueError, match="backend 'cpu' needs tensors on the CPU, got meta"):
        first_spike_time(TIMES.to("meta"), WEIGHT.to("meta"), LIF(), backend="cpu")


FORM_ERRORS = {
    "sizes differ": ({"weight": torch.ones(4, 2)}, r"times \(2, 3\) and weight \(4, 2\)"),
    "weight is a vector": ({"weight": torch.ones(3)}, r"weight \(outputs, inputs\)"),
    "times is a number": ({"times": torch.tensor(1.0)}, r"expected times \(\.\.\., inputs\)"),
    "half precision": ({"times": TIMES.half(), "weight": WEIGHT.half()}, "weight must be float32 or float64, got .*16"),
    "integer weight": ({"weight": WEIGHT.long()}, "weight must be float32 or float64, got .*int64"),
    "integer times": ({"times": TIMES.long()}, "times is torch.int64 .* weight is torch.float32"),
    "mixed precision": ({"times": TIMES.double()}, r"times is torch.float64 .*times\.to\(weight\)"),
    "other device": ({"times": TIMES.to("meta")}, "times is .* on meta, weight is .* on cpu"),
    "delay of a wrong shape": ({"delay": torch.ones(3)}, r"delay must have the shape \(4, 3\), got \(3,\)"),
    "delay of a wrong type": ({"delay": torch.ones(4, 3).double()}, "delay is torch.float64"),
    "observed of a wrong shape": ({"observed": torch.ones(2, 3)}, r"observed must have the shape \(2, 4\), got"),
    "observed of a wrong type": ({"observed": torch.ones(2, 4).double()}, "observed is torch.float64"),
    "threshold of a wrong shape": (
        {"neuron": LIF(threshold=torch.ones(3))},
        r"threshold must be one number or \(4,\), got \(3,\)",
    ),
    "sparse times": ({"times": TIMES.to_sparse()}, r"times must be a dense tensor, .*; write times\.to_dense"),
    "sparse weight": ({"weight": WEIGHT.to_sparse()}, "weight must be a dense tensor, got torch.sparse_coo"),
    "sparse delay": ({"delay": WEIGHT.abs().to_sparse()}, "delay must be a dense tensor"),
    "complex times": ({"times": TIMES + 0j}, "times is torch.complex64"),
    "complex weight": ({"weight": WEIGHT + 0j}, "weight must be float32 or float64, got torch.complex64"),
    "unknown backend": ({"backend": "gpu"}, "backend must be one of auto, reference.*got 'gpu'"),
    "max_weight_grad of 0": ({"max_weight_grad": 0.0}, "max_weight_grad must be > 0 or None, got 0.0"),
    "max_weight_grad below 0": ({"max_weight_grad": -1.0}, "max_weight_grad must be > 0 or None, got -1.0"),
    "max_weight_grad of NaN": ({"max_weight_grad": math.nan}, "max_weight_grad must be > 0 or None, got nan"),
}


@pytest.mark.host
@pytest.mark.parametrize("name", FORM_ERRORS)
def test_wrong_form(name):
    changed, message = FORM_ERRORS[name]
    arguments = {"times": TIMES, "weight": WEIGHT, "neuron": LIF(), **changed}
    with pytest.raises(ValueError, match=message):
        first_spike_time(**arguments)


def with_value(tensor, value):
    changed = tensor.clone()
    changed.view(-1)[-1] = value
    return changed


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("times", math.nan, "times must be real numbers or inf .*got NaN or -inf"),
        ("times", -INF, "times must be real numbers or inf .*got NaN or -inf"),
        ("weight", math.nan, "weight must be finite, got NaN or inf"),
        ("weight", INF, "weight must be finite, got NaN or inf"),
        ("weight", -INF, "weight must be finite, got NaN or inf"),
        ("delay", -0.5, "delay must be >= 0 and finite, got -0.5"),
        ("delay", math.nan, "delay must be >= 0 and finite"),
        ("delay", INF, "delay must be >= 0 and finite"),
        ("observed", math.nan, "observed times must be real numbers or inf .*got NaN or -inf"),
        ("observed", -INF, "observed times must be real numbers or inf .*got NaN or -inf"),
        ("threshold", 0.0, "threshold must be > 0 and finite, got 0.0"),
        ("threshold", -1.0, "threshold must be > 0 and finite, got -1.0"),
        ("threshold", math.nan, "threshold must be > 0 and finite"),
        ("threshold", INF, "threshold must be > 0 and finite"),
    ],
)
@pytest.mark.usefixtures("checked_at_once")
def test_wrong_values(name, value, message, backend):
    tensors = {
        "times": torch.zeros(2, 3),
        "weight": torch.ones(4, 3),
        "delay": torch.ones(4, 3),
        "observed": torch.ones(2, 4),
    }
    tensors["threshold"] = torch.ones(4)
    tensors[name] = with_value(tensors[name], value)
    neuron = LIF(threshold=tensors.pop("threshold"))
    with pytest.raises(ValueError, match=message):
        first_spike_time(neuron=neuron, backend=backend, **tensors)


@pytest.mark.usefixtures("checked_at_once")
def test_infinities_of_both_signs_in_the_weights(backend):
    weight = torch.ones(4, 3)
    weight[0, 0], weight[1, 1] = INF, -INF
    with pytest.raises(ValueError, match="weight must be finite"):
        first_spike_time(torch.zeros(2, 3), weight, LIF(), backend=backend)


def test_weights_whose_sum_overflows(backend):
    times, weight = torch.zeros(2, 3), torch.ones(4, 3)
    found = first_spike_time(times, weight * 1e38, LIF(threshold=1e38), backend=backend)
    torch.testing.assert_close(found, first_spike_time(times, weight, LIF(), backend=backend))


@pytest.mark.parametrize("name", ["threshold", "bias", "refractory"])
def test_values_that_the_dtype_cannot_hold(name):
    times, weight = torch.rand(1, 3), torch.rand(2, 3)
    with pytest.raises(ValueError, match=r"a value of the neuron, 1e\+100, is too large for torch.float32"):
        spike_trains(times.unsqueeze(-1), weight, LIF(**{name: 1e100}), max_spikes=2)
