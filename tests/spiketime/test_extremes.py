"""Numbers of any size against 150 digits: ratios of time constants, weights, thresholds, units of time."""

import math
from dataclasses import dataclass

import mpmath as mp
import pytest
import torch
from torch import Tensor

from firstspike import LIF, first_spike_time
from firstspike.spiketime.units import LARGEST, LONGEST

INF = math.inf
KINDS = ["few", "many", "wide", "delays", "observed", "learnt", "single", "single delays"]
_ULPS = 64  # by which a result may miss the truth, in units of what rounding of all its parts does


@pytest.fixture(params=[pytest.param(torch.float32, id="float32", marks=pytest.mark.slow), torch.float64])
def dtype(request):
    return request.param


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@dataclass
class Case:
    """One sample, and neurons of which each is checked; ``copies`` of them fill wide kernels."""

    times: Tensor
    weight: Tensor
    tau_mem: float
    tau_syn: float
    threshold: float
    delay: Tensor | None = None
    taus: str = "numbers"  # or tensors that all neurons share, or of each
    observed: bool = False  # the spike times come from outside
    copies: int = 1

    def run(self, backend):
        """For each neuron its spike time, and the gradients of that by everything."""
        leaves = {"times": self.times, "weight": self.weight.repeat(self.copies, 1)}
        outputs = len(leaves["weight"])
        leaves["threshold"] = torch.full((outputs,), self.threshold, dtype=self.times.dtype)
        if self.delay is not None:
            leaves["delay"] = self.delay.repeat(self.copies, 1)
        taus = {"tau_mem": self.tau_mem, "tau_syn": self.tau_syn}
        if self.taus != "numbers":
            size = () if self.taus == "shared" else (outputs,)
            given = {n: torch.full(size, tau, dtype=self.times.dtype) for n, tau in taus.items() if tau < INF}
            if self.taus == "single":  # the last neuron has other ones, so that each is looked at alone
                given["tau_syn"][-1] /= 2
            leaves = {**leaves, **given}
        leaves = {name: x.clone().requires_grad_() for name, x in leaves.items()}
        lif = LIF(**{n: leaves.get(n, tau) for n, tau in taus.items()}, threshold=leaves["threshold"])

        def spikes_of(observed=None):
            x, w, delay = leaves["times"], leaves["weight"], leaves.get("delay")
            return first_spike_time(x, w, lif, delay=delay, observed=observed, backend=backend)

        spikes = spikes_of()
        if self.observed:
            spikes = spikes_of(spikes.detach())
        assert not spikes.isnan().any()
        repeated = spikes.reshape(self.copies, -1)
        assert torch.equal(repeated, repeated[:1].expand_as(repeated))
        found = []
        for k in range(len(self.weight) - (self.taus == "single")):
            grads = torch.autograd.grad(spikes[k], list(leaves.values()), retain_graph=True)
            assert not any(x.isnan().any() for x in grads)
            mine = dict(zip(leaves, grads, strict=True))
            found.append((spikes[k].item(), {n: x if n == "times" or x.ndim == 0 else x[k] for n, x in mine.items()}))
        return found


def make(kind, ratio, dtype, unit=1.0, scale=1.0, strength=(1.0, 1.0), seed=0, span=2.0):
    """Neurons of which most fire: times in units of ``unit`` time constants, weights in units of the threshold.

    ``strength`` is a factor of all weights for each neuron.
    """
    gen = torch.Generator().manual_seed(seed)
    count, neurons = 5, len(strength)
    times = torch.rand(count, generator=gen, dtype=torch.float64) * span
    weight = 1.8 + 1.2 * torch.randn(neurons, count, generator=gen, dtype=torch.float64)
    top = 1 / math.e if ratio == 1 else 1.0 if ratio == INF else math.exp(-math.log(ratio) / (ratio - 1))
    enough = 1.3 if ratio > 2 else 2.0
    weight[-1] = enough / top / count * min(1.0, ratio)  # fires late
    if kind == "many":  # and many that do nothing, close together
        times = torch.cat([times, torch.linspace(0, 1, 60, dtype=torch.float64) * span])
        weight = torch.cat([weight, torch.zeros(neurons, 60, dtype=torch.float64)], dim=1)
    if kind.startswith("single"):
        strength, weight = (*strength, 1.0), torch.cat([weight, weight[:1]])
    weight = weight * torch.tensor(strength, dtype=torch.float64)[:, None] / min(1.0, ratio)
    delay = torch.rand(weight.shape, generator=gen, dtype=torch.float64) * span / 2 * unit
    threshold = torch.tensor(scale, dtype=dtype).double()
    return Case(
        (times * unit).to(dtype),
        (weight * threshold).to(dtype),
        ratio * unit,
        unit,
        threshold.item(),
        delay.to(dtype) if kind.endswith("delays") else None,
        taus="single" if kind.startswith("single") else "shared" if kind == "learnt" else "numbers",
        observed=kind == "observed",
        copies=10 if kind == "wide" else 1,
    )


def gradients(t, times, weights, tau_mem, tau_syn, threshold, exact):
    """Derivatives at the spike time t, the slope there, and in how far rounding shows in it and in the spike time."""
    mem, syn, t = mp.mpf(tau_mem), mp.mpf(tau_syn), mp.mpf(t)
    waits = [max(t - mp.mpf(x), mp.mpf(0)) if x < INF else mp.mpf(0) for x in times]
    responses = [exact.response(s, mem, syn) for s in waits]
    decays = [mp.exp(-s / syn) if s > 0 else mp.mpf(0) for s in waits]
    rises = [d / syn - k / mem for d, k in zip(decays, responses, strict=True)]
    drive = [mp.mpf(w) * d / syn for w, d in zip(weights, decays, strict=True)]
    slope = mp.fsum(drive) - threshold / mem
    noise = mp.fsum(map(abs, drive)) + threshold / mem
    shift = [mp.mpf(w) * (abs(k) + abs(r * s)) for w, k, r, s in zip(weights, responses, rises, waits, strict=True)]
    found = {
        "weight": [-k / slope for k in responses],
        "times": [mp.mpf(w) * r / slope for w, r in zip(weights, rises, strict=True)],
        "threshold": [1 / slope],
    }
    return found, slope, noise, (mp.fsum(map(abs, shift)) + threshold) / abs(slope)


def by_taus(t, times, weights, tau_mem, tau_syn, slope, exact):
    """Derivatives by the time constants, and the sums of their terms' magnitudes."""
    found = {}
    with mp.workdps(3 * mp.mp.dps):
        step = mp.mpf(10) ** (-mp.mp.dps // 3)
        for name, mem, syn in (("tau_mem", 1, 0), ("tau_syn", 0, 1)):
            terms = [mp.mpf(0)]
            for x, w in zip(times, weights, strict=True):
                if x < t and not (mem and tau_mem == INF):
                    s = mp.mpf(t) - mp.mpf(x)
                    taus = [(mp.mpf(tau_mem) * (1 + h * mem), mp.mpf(tau_syn) * (1 + h * syn)) for h in (step, -step)]
                    high, low = (exact.response(s, *pair) for pair in taus)
                    terms.append(-mp.mpf(w) * (high - low) / (2 * step * (tau_mem if mem else tau_syn)) / slope)
            found[name] = mp.fsum(terms), mp.fsum(map(abs, terms))
    return found


def check(case, backend, exact):
    """Compare all neurons of a case; returns how many fired."""
    dtype = case.times.dtype
    info, fired = torch.finfo(dtype), 0
    threshold = torch.tensor(case.threshold, dtype=dtype).item()
    taus = [case.tau_mem, case.tau_syn]
    if case.taus != "numbers":
        taus = [torch.tensor(x, dtype=dtype).item() for x in taus]
    for k, (found, grads) in enumerate(case.run(backend)):
        arrival = case.times if case.delay is None else case.times + case.delay[k]
        known = (tuple(arrival.tolist()), tuple(case.weight[k].tolist()))
        with mp.workdps(exact.extreme):
            truth = exact.first_spike(*known, *taus, threshold, exact.extreme)
            if (found == INF) != (truth == mp.inf):  # only next to a tangent
                others = [exact.first_spike(*known, *taus, threshold * (1 + x), exact.extreme) for x in (1e-3, -1e-3)]
                assert len({x == mp.inf for x in others}) == 2, (found, float(truth))
                continue
            if found == INF:
                assert not any(x.any() for x in grads.values())
                continue
            fired += 1
            *_, shift = gradients(truth, *known, *taus, threshold, exact)
            bound = _ULPS * info.eps * (abs(truth) + shift) + info.smallest_normal * info.eps
            last = max(x for x in known[0] if x < truth)
            assert found > last, "the input that causes a spike is before it"
            following = after(torch.tensor(last, dtype=dtype)).item()
            assert abs(mp.mpf(found) - truth) <= bound or found == following, (found, mp.nstr(truth, 20))
            wanted, slope, noise, _ = gradients(found, *known, *taus, threshold, exact)
            if slope < -1e-3 * noise:
                assert not any(x.any() for x in grads.values())
            if slope < 1e-2 * noise or found - last > 80 * min(taus):
                continue  # no digits are left of the slope
            wanted["delay"] = wanted["times"]
            sizes = {name: max(map(abs, x)) for name, x in wanted.items()}
            if "tau_syn" in grads:
                for name, (value, size) in by_taus(found, *known, *taus, slope, exact).items():
                    wanted[name], sizes[name] = [value], size
            for name, mine in grads.items():
                top = sizes[name]
                if top > info.max / 1e6:
                    continue
                limit = _ULPS * info.eps * (noise / slope + abs(found) / min(taus)) * top + 4 * info.smallest_normal
                for a, b in zip(mine.reshape(-1).tolist(), wanted[name], strict=True):
                    assert abs(mp.mpf(a) - b) <= limit, (name, a, mp.nstr(b, 17), mp.nstr(top, 5))
    return fired


def after(x):
    """The next number of the dtype."""
    return torch.nextafter(x, torch.tensor(INF, dtype=x.dtype))


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [1e17, 1e30, 1e-6, 1e-25])
def test_ratios_of_time_constants(ratio, kind, dtype, backend, exact):
    assert check(make(kind, ratio, dtype), backend, exact) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("unit", "ratio"), [(1e-30, 1.0), (1e-19, INF), (1e30, 1.37)])
def test_units_of_time(unit, ratio, kind, dtype, backend, exact):
    assert check(make(kind, ratio, dtype, unit), backend, exact) == 2


@pytest.mark.parametrize(("scale", "ratio"), [(1e-44, 1.0), (1e-30, INF), (1e37, 2.0)])
def test_thresholds(scale, ratio, kind, dtype, backend, exact):
    assert check(make(kind, ratio, dtype, scale=scale), backend, exact) == 2


@pytest.mark.parametrize(("strength", "ratio"), [(1e10, 0.5), (1e19, INF), (1e29, 1.37)])
def test_weights_of_many_thresholds(strength, ratio, kind, dtype, backend, exact):
    assert check(make(kind, ratio, dtype, strength=(strength, 1.0)), backend, exact) == 2


@pytest.mark.parametrize("kind", ["few", "delays", "single"])
def test_weights_of_many_thresholds_at_times_close_to_zero(kind, dtype, backend, exact):
    """Spikes keep their digits relative to the wait since the first input, not to the time constants."""
    assert check(make(kind, 1.37, dtype, strength=(1e25, 1e12, 1.0), span=0.0), backend, exact) == 3
    assert check(make(kind, 1e-23, dtype, strength=(1e4, 1.0), span=0.0), backend, exact) == 2


def test_everything_at_once(kind, dtype, backend, exact):
    case = make(kind, 3e14, dtype, unit=2e17, scale=1e-25, strength=(1e20, 1e3, 1.0), span=0.01)
    assert check(case, backend, exact) >= 2


def test_double_precision_reaches_further(kind, backend, exact):
    case = make(kind, 1e12, torch.float64, unit=1e120, scale=1e-250, strength=(1e60, 1.0))
    assert check(case, backend, exact) == 2


@pytest.mark.parametrize("largest", [False, True])
def test_a_leak_too_slow_to_show_is_none(largest, dtype, backend):
    times, weight = torch.tensor([[0.0, 0.3, 1.0]], dtype=dtype), torch.tensor([[0.4, 0.4, 0.6]], dtype=dtype)
    tau_mem = torch.finfo(dtype).max if largest else LARGEST[dtype]
    found = first_spike_time(times, weight, LIF(tau_mem), backend=backend)
    assert found.isfinite().all()
    torch.testing.assert_close(found, first_spike_time(times, weight, LIF(INF), backend=backend))


def refused(message, lif, weight=1.0, times=0.0, dtype=torch.float32):
    with pytest.raises(ValueError, match=message):
        first_spike_time(torch.full((1, 2), times, dtype=dtype), torch.full((1, 2), weight, dtype=dtype), lif)


def test_what_does_not_fit_is_refused():
    refused(r"weights must be at most 1e\+30 times the threshold in torch.float32, got 2e\+30 times", LIF(), 2e30)
    refused(r"at most 1e\+200 times .* did the training diverge", LIF(threshold=1e-100), 1e101, dtype=torch.float64)
    refused(r"tau_syn must be between 1e-35 and 1e\+35 in torch.float32, got 1e-36", LIF(1.0, 1e-36))
    refused(r"tau_syn must be between 1e-35 and 1e\+35 in torch.float32, got 1e\+36", LIF(1e36, 1e36))
    refused(r"tau_mem must be at least 1e-35 in torch.float32, got 1e-36", LIF(1e-36, 1e-36))
    refused(r"tau_mem must be at least 1e-30 tau_syn in torch.float32, got 1e-20 and 1e\+11", LIF(1e-20, 1e11))
    taus = torch.tensor([1e-36]), torch.tensor([1.0])
    refused(r"tau_mem must be at least 1e-35 in torch.float32, got 1e-36", LIF(*taus))
    refused(r"times must be below 5.36871e\+08 with such time constants in torch.float32", LIF(1e-30, 1e-30), times=1e9)
    assert sorted(map(str, LARGEST)) == sorted(map(str, LONGEST)) == ["torch.float32", "torch.float64"]


@pytest.mark.parametrize("time", [0.0, 0.7, 1.0, -0.9, -1.0, 3e4])
def test_spikes_too_soon_for_the_floats(time, kind, dtype):
    """Where T would round to the time of the input that causes it, it is the next number, and that input is causal."""
    found = []
    for backend in ("reference", "cpu"):
        case = make(kind, 1.37, dtype, strength=(1e29,))
        case.times = torch.where(case.times == case.times[0], time, case.times + 5e4)
        case.weight[..., 0], case.threshold = 1e28, 1e-1
        if case.delay is not None:
            case.delay[..., 0] = 0.01
            case.delay[..., 1:] += 0.02
        spike, grads = case.run(backend)[0]
        arrival = case.times[0] if case.delay is None else (case.times + case.delay[0])[0]
        # at 0 numbers are fine enough
        assert spike > arrival if time == 0 else spike == after(arrival)
        found.append(grads)
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-4, atol=0)
    assert found[0]["times"][0].item() == pytest.approx(1.0, rel=0.01)
