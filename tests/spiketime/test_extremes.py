"""Numbers of any size against 50 digits and more: ratios of time constants, weights, thresholds, units of time."""

import math
from dataclasses import dataclass

import mpmath as mp
import torch
from torch import Tensor

from firstspike import LIF, first_spike_time

INF = math.inf
DTYPES = [torch.float32, torch.float64]
KINDS = ["few", "many", "wide", "delays", "learnt", "single", "single delays"]
_ULPS = 64  # by which a result may miss the truth, in units of what rounding of its input does


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
    copies: int = 1

    def run(self, backend):
        """Spike times, and gradients by everything for each neuron: the sum of its own over its copies."""
        leaves = {"times": self.times, "weight": self.weight.repeat(self.copies, 1)}
        outputs = len(leaves["weight"])
        leaves["threshold"] = torch.full((outputs,), self.threshold, dtype=self.times.dtype)
        if self.delay is not None:
            leaves["delay"] = self.delay.repeat(self.copies, 1)
        leaves = {name: x.clone().requires_grad_() for name, x in leaves.items()}
        taus = {"tau_mem": self.tau_mem, "tau_syn": self.tau_syn}
        if self.taus != "numbers":
            size = () if self.taus == "shared" else (outputs,)
            given = {n: torch.full(size, tau, dtype=self.times.dtype) for n, tau in taus.items() if tau < INF}
            if self.taus == "single":  # the last neuron has other ones, so that each is looked at alone
                given["tau_syn"][-1] /= 2
            given = {n: x.requires_grad_() for n, x in given.items()}
            leaves, taus = {**leaves, **given}, {**taus, **given}
        lif = LIF(**taus, threshold=leaves["threshold"])
        spikes = first_spike_time(leaves["times"], leaves["weight"], lif, delay=leaves.get("delay"), backend=backend)
        assert not spikes.isnan().any()
        found = []
        for k in range(len(self.weight) - (self.taus == "single")):
            mine = torch.autograd.grad(spikes[k], list(leaves.values()), retain_graph=True, allow_unused=True)
            part = dict(zip(leaves, mine, strict=True))
            assert all(not x.isnan().any() for x in mine)
            mine = {n: x if n == "times" or x.ndim == 0 else x[k] for n, x in part.items()}
            found.append((spikes[k].item(), mine))
        repeated = spikes.reshape(self.copies, -1)
        assert torch.equal(repeated, repeated[:1].expand_as(repeated))
        return found


def gradients(t, times, weights, tau_mem, tau_syn, threshold, exact):
    """Derivatives at the spike time t, the slope there, and in how far rounding of the sums shows in it."""
    mem, syn, t = mp.mpf(tau_mem), mp.mpf(tau_syn), mp.mpf(t)
    since = [t - mp.mpf(x) if x < t else None for x in times]
    responses = [0 if s is None else exact.response(s, mem, syn) for s in since]
    decays = [0 if s is None else mp.exp(-s / syn) for s in since]
    drive = [mp.mpf(w) * d / syn for w, d in zip(weights, decays, strict=True)]
    slope = mp.fsum(drive) - threshold / mem
    rises = [0 if s is None else d / syn - k / mem for s, d, k in zip(since, decays, responses, strict=True)]
    noise = mp.fsum(map(abs, drive)) + threshold / mem
    by_weight = [-k / slope for k in responses]
    by_times = [mp.mpf(w) * r / slope for w, r in zip(weights, rises, strict=True)]
    # what an error of one unit in the last place of all numbers does to the spike time
    shift = mp.fsum(abs(mp.mpf(w) * k) for w, k in zip(weights, responses, strict=True)) + threshold
    shift += mp.fsum(abs(mp.mpf(w) * r * s) for w, r, s in zip(weights, rises, since, strict=True) if s is not None)
    found = {"weight": by_weight, "times": by_times, "threshold": [1 / slope]}
    return found, slope, noise, shift / abs(slope)


def by_taus(t, times, weights, tau_mem, tau_syn, slope, exact):
    """Derivatives by the time constants, and the sum of their terms' magnitudes."""
    step = mp.mpf(10) ** (-mp.mp.dps // 3)
    found = {}
    for name, mem, syn in (("tau_mem", 1, 0), ("tau_syn", 0, 1)):
        terms = []
        for x, w in zip(times, weights, strict=True):
            s = mp.mpf(t) - mp.mpf(x)
            if s > 0 and not (mem and tau_mem == INF):
                high, low = (
                    exact.response(s, mp.mpf(tau_mem) * (1 + h * mem), mp.mpf(tau_syn) * (1 + h * syn))
                    for h in (step, -step)
                )
                terms.append(-mp.mpf(w) * (high - low) / (2 * step * (tau_mem if mem else tau_syn)) / slope)
        found[name] = mp.fsum(terms), mp.fsum(map(abs, terms))
    return found


def check(case, backend, exact, skipped=0):
    """All neurons of a case; returns how many fired."""
    dtype = case.times.dtype
    info, fired = torch.finfo(dtype), 0
    threshold = torch.tensor(case.threshold, dtype=dtype).item()
    taus = [x if case.taus == "numbers" else torch.tensor(x, dtype=dtype).item() for x in (case.tau_mem, case.tau_syn)]
    for k, (found, grads) in enumerate(case.run(backend)):
        arrival = case.times if case.delay is None else case.times + case.delay[k]
        known = (tuple(arrival.tolist()), tuple(case.weight[k].tolist()))
        with mp.workdps(exact.extreme):
            truth = exact.first_spike(*known, *taus, threshold, exact.extreme)
            later, earlier = (
                exact.first_spike(*known, *taus, threshold * (1 + x), exact.extreme) for x in (1e-3, -1e-3)
            )
            if (truth == mp.inf) != (later == mp.inf) or (truth == mp.inf) != (earlier == mp.inf):
                continue  # too close to a tangent
            assert (found == INF) == (truth == mp.inf), (found, float(truth))
            if found == INF:
                assert not any(x.any() for x in grads.values())
                continue
            fired += 1
            *_, shift = gradients(truth, *known, *taus, threshold, exact)
            bound = _ULPS * info.eps * (abs(truth) + shift) + info.smallest_normal * info.eps
            last = max(x for x in known[0] if x < truth)
            assert found > last, "the input that causes a spike is before it"
            step = torch.nextafter(torch.tensor(last, dtype=dtype), torch.tensor(INF, dtype=dtype)).item()
            assert abs(mp.mpf(found) - truth) <= bound or found == step, (found, mp.nstr(truth, 20), float(shift))
            wanted, slope, noise, _ = gradients(found, *known, *taus, threshold, exact)
            if slope <= 0:
                if slope < -1e-3 * noise:
                    assert not any(x.any() for x in grads.values())
                continue
            if slope < 1e-2 * noise or found - last > 80 * min(taus):
                continue  # no digits are left of the slope
            wanted["delay"] = wanted["times"]
            sizes = {name: max(map(abs, x)) for name, x in wanted.items()}
            with mp.workdps(3 * exact.extreme):
                for name, (value, size) in by_taus(found, *known, *taus, slope, exact).items():
                    wanted[name], sizes[name] = [value], size
            for name, mine in grads.items():
                true, mine, top = wanted[name], mine.reshape(-1).tolist(), sizes[name]
                if top > info.max / 8:
                    continue
                limit = _ULPS * info.eps * (noise / slope + abs(found) / min(taus)) * top + 4 * info.smallest_normal
                for a, b in zip(mine, true, strict=True):
                    assert abs(mp.mpf(a) - b) <= limit, (name, a, mp.nstr(b, 17), mp.nstr(top, 5))
    return fired


def make(kind, ratio, dtype, unit=1.0, scale=1.0, strength=(1.0, 1.0), seed=0, span=2.0):
    """Neurons of which most fire: times in units of ``unit`` time constants, weights in units of the threshold.

    ``strength`` is a factor of all weights for each neuron.
    """
    gen = torch.Generator().manual_seed(seed)
    count, neurons = 5, len(strength)
    times = torch.rand(count, generator=gen, dtype=torch.float64) * span
    weight = 1.8 + 1.2 * torch.randn(neurons, count, generator=gen, dtype=torch.float64)
    top = 1 / math.e if ratio == 1 else 1.0 if ratio == INF else math.exp(-math.log(ratio) / (ratio - 1))
    weight[-1] = 1.3 / top / count * min(1.0, ratio)  # fires after the last input, if at all
    if kind == "many":  # and many that do nothing, close together
        times = torch.cat([times, torch.linspace(0, 1, 60, dtype=torch.float64) * span])
        weight = torch.cat([weight, torch.zeros(neurons, 60, dtype=torch.float64)], dim=1)
        count = len(times)
    if kind.startswith("single"):
        strength, weight, neurons = (*strength, 1.0), torch.cat([weight, weight[:1]]), neurons + 1
    weight = weight * torch.tensor(strength, dtype=torch.float64)[:, None] / min(1.0, ratio)
    if kind.endswith("delays"):
        delay = torch.rand(neurons, count, generator=gen, dtype=torch.float64) * span / 2
    else:
        delay = None
    threshold = torch.tensor(scale, dtype=dtype).double()
    return Case(
        (times * unit).to(dtype),
        (weight * threshold).to(dtype),
        ratio * unit,
        unit,
        threshold.item(),
        None if delay is None else (delay * unit).to(dtype),
        taus="single" if kind.startswith("single") else "shared" if kind == "learnt" else "numbers",
        copies=10 if kind == "wide" else 1,
    )
