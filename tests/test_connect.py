"""Rules for sparse synapses: their distributions, order and values, and what they refuse."""

import copy
import inspect
import math
import pickle
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
import pytest
import torch
from scipy import sparse, stats

import firstspike as fs
from firstspike import connect
from firstspike.connect import Synapses


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def key(synapses):
    return synapses.source * synapses.targets + synapses.target


def sonata(folder, source, target, population="cortex_to_cortex", **values):
    """A file of edges, whose values are stored in reverse."""
    with h5py.File(path := folder / "edges.h5", "w") as file:
        edges = file.create_group(f"edges/{population}")
        edges["source_node_id"], edges["target_node_id"] = np.uint64(source), np.uint64(target)
        edges["edge_group_id"], edges["edge_group_index"] = np.zeros(len(source)), np.arange(len(source))[::-1]
        for name, x in values.items():
            edges[f"0/{name}"] = np.asarray(x)[::-1]
    return path


def a_sonata_file(**options):
    with TemporaryDirectory() as folder:
        path = sonata(Path(folder), *torch.randint(40, (2, 300), generator=seeded(3)).numpy())
        return connect.from_sonata(path, 40, 60, **options)


def degrees(synapses):
    out, into = (
        torch.bincount(x, minlength=n)
        for x, n in ((synapses.source, synapses.sources), (synapses.target, synapses.targets))
    )
    return out, into


RULES = {
    "probability": lambda **options: connect.fixed_probability(40, 60, 0.2, **options),
    "indegree": lambda **options: connect.fixed_indegree(40, 60, 7, **options),
    "outdegree": lambda **options: connect.fixed_outdegree(40, 60, 7, **options),
    "multapses": lambda **options: connect.fixed_outdegree(40, 60, 70, multapses=True, **options),
    "many": lambda **options: connect.fixed_indegree(40, 60, 35, **options),
    "one to one": lambda **options: connect.one_to_one(40, **options),
    "all to all": lambda **options: connect.all_to_all(40, 60, **options),
    "pairs": lambda **options: connect.pairs(
        torch.randperm(2400, generator=seeded(3))[:300].view(2, -1) % 40, 40, 60, multapses=True, **options
    ),
    "ring": lambda **options: connect.by_distance(50, lambda d: torch.exp(-d / 4), **options),
    "grid": lambda **options: connect.by_distance((9, 7), lambda d: torch.exp(-d), periodic=False, **options),
    "sonata": a_sonata_file,
    "sparse": lambda **options: connect.from_sparse(sparse.random(60, 40, 0.2, random_state=0), **options),
}


@pytest.mark.parametrize("rule", RULES)
def test_all_rules(rule):
    """In order and in CSR format, seeded, with values from distributions and functions; nobody else's state."""
    state = torch.get_rng_state()
    values = {"delay": torch.distributions.Uniform(1.0, 2.0), "generator": seeded()}
    if rule != "sparse":
        values["weight"] = lambda about: (
            0.5 + torch.rand_like(about.double()) if isinstance(about, torch.Tensor) else torch.rand(about)
        )
    found = RULES[rule](**values)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(found) > 30
    assert bool((key(found).diff() >= 0).all())
    assert found.multapses == (rule in ("multapses", "pairs", "sonata")) == (len(key(found).unique()) < len(found))
    assert found.rows.tolist() == [0, *degrees(found)[0].cumsum(0).tolist()]
    assert (found.source.dtype, found.target.dtype, found.rows.dtype) == (torch.int64,) * 3
    assert found.weight.shape == found.delay.shape == (len(found),)
    assert 1 <= found.delay.min() < found.delay.max() <= 2
    again, other = RULES[rule](**values | {"generator": seeded()}), RULES[rule](**values | {"generator": seeded(1)})
    for name in ("source", "target", "weight", "delay"):
        assert torch.equal(getattr(found, name), getattr(again, name))
    assert not torch.equal(found.delay[:30], other.delay[:30])
    bare = RULES[rule]()
    assert bare.delay is None
    assert (bare.weight is None) == (rule != "sparse")
    assert f"{len(found)} synapses, weight, delay" in repr(found)


def test_fixed_probability():
    """Each pair exists with the probability, whatever the others are: chi-square tests of degrees and pairs."""
    for probability in (0.03, 0.3, 0.7):
        runs = torch.stack(
            [
                torch.bincount(key(connect.fixed_probability(20, 30, probability, generator=seeded(k))), minlength=600)
                for k in range(400)
            ]
        )
        assert int(runs.max()) == 1
        of_pairs = runs.sum(0).double()
        assert (
            stats.chi2.sf(
                float(((of_pairs - 400 * probability) ** 2).sum() / (400 * probability * (1 - probability))), 600
            )
            > 1e-4
        )
        for number, counts in ((30, runs.view(400, 20, 30).sum(2)), (20, runs.view(400, 20, 30).sum(1))):
            seen = torch.bincount(counts.flatten(), minlength=number + 1).double().numpy()
            expected = stats.binom.pmf(np.arange(number + 1), number, probability) * counts.numel()
            often = expected > 5
            assert stats.chi2.sf(((seen - expected)[often] ** 2 / expected[often]).sum(), int(often.sum())) > 1e-4
    assert len(connect.fixed_probability(20, 30, 0.0)) == 0
    assert torch.equal(key(connect.fixed_probability(20, 30, 1.0)), torch.arange(600))


@pytest.mark.parametrize(("sources", "number"), [(12, 3), (12, 9), (12, 12)], ids=["few", "many", "all"])
@pytest.mark.parametrize("autapses", [True, False])
def test_fixed_degrees(sources, number, autapses):
    """Each set is equally likely: of single sources, and of pairs of sources of one target."""
    number -= not autapses and number == sources
    runs = []
    for k in range(300):
        found = connect.fixed_indegree(sources, sources, number, autapses=autapses, generator=seeded(k))
        out = connect.fixed_outdegree(sources, sources, number, autapses=autapses, generator=seeded(k))
        assert degrees(found)[1].tolist() == degrees(out)[0].tolist() == [number] * sources
        assert torch.equal(key(out), (out.source * sources + out.target))
        there = torch.zeros(sources, sources)
        there[found.target, found.source] = 1
        assert there.sum() == number * sources
        assert autapses or not bool((found.source == found.target).any())
        runs.append(there)
    runs = torch.stack(runs)
    mean, others = runs.mean(0), sources - (not autapses)
    expected = torch.full((sources, sources), number / others)
    if not autapses:
        expected.fill_diagonal_(0)
    assert float((mean - expected).abs().max()) < 5 * math.sqrt(0.25 / 300)
    together = torch.einsum("kti,ktj->tij", runs, runs) / 300
    pairs = torch.full((sources, sources, sources), number * (number - 1) / (others * (others - 1)))
    each = torch.arange(sources)
    skipped = (
        (each[:, None, None] == each[:, None]) | (each[:, None, None] == each) if not autapses else torch.tensor(False)
    )
    apart = (each[:, None] != each) & ~skipped
    assert float((together - pairs)[apart.expand_as(together)].abs().max()) < 5 * math.sqrt(0.25 / 300)


def test_multapses_are_drawn_with_replacement():
    found = connect.fixed_indegree(10, 2000, 15, multapses=True, generator=seeded())
    assert found.multapses
    assert degrees(found)[1].tolist() == [15] * 2000
    counts = torch.bincount(degrees(found)[0])
    assert float(degrees(found)[0].double().std()) < 5 * math.sqrt(3000)
    assert counts.sum() == 10
    alone = connect.fixed_outdegree(3, 3, 8, multapses=True, autapses=False, generator=seeded())
    assert degrees(alone)[0].tolist() == [8] * 3
    assert not bool((alone.source == alone.target).any())


def test_simple_rules():
    each = connect.one_to_one(4, weight=0.1)
    assert each.source.tolist() == each.target.tolist() == [0, 1, 2, 3]
    assert each.weight.tolist() == [0.1] * 4
    assert connect.all_to_all(2, 3).target.tolist() == [0, 1, 2] * 2
    assert connect.all_to_all(3, 3, autapses=False).target.tolist() == [1, 2, 0, 2, 0, 1]
    assert (
        len(connect.all_to_all(1, 1, autapses=False)) == len(connect.fixed_probability(1, 1, 0.9, autapses=False)) == 0
    )


def test_pairs_keep_their_values():
    index = torch.tensor([[3, 0, 2, 0], [1, 2, 0, 0]])
    found = connect.pairs(index, 4, 3, weight=torch.tensor([0.1, 0.2, 0.3, 0.4]), delay=[1, 2, 3, 4])
    assert found.source.tolist() == [0, 0, 2, 3]
    assert found.target.tolist() == [0, 2, 0, 1]
    assert found.weight.tolist() == torch.tensor([0.4, 0.2, 0.3, 0.1]).tolist()
    assert found.delay.tolist() == [4, 2, 3, 1]
    assert found.rows.tolist() == [0, 2, 2, 3, 4]
    index.zero_()  # theirs
    assert found.source.tolist() == [0, 0, 2, 3]
    given = torch.tensor([0, 1])
    kept = Synapses(2, 2, given, given, weight=given.double())
    given.zero_()
    assert kept.source.tolist() == kept.weight.tolist() == [0, 1]
    for copied in (copy.deepcopy(kept), pickle.loads(pickle.dumps(kept))):
        assert torch.equal(key(copied), key(kept))


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("shape", [7, (4, 5), (3, 2, 3)])
def test_distances(shape, periodic):
    """Which pairs, at which distance, against all pairs one by one; delays are functions of them."""
    sides = (shape,) if isinstance(shape, int) else shape
    number = math.prod(sides)
    place = torch.stack(torch.unravel_index(torch.arange(number), sides), dim=1)
    apart = (place[:, None] - place).abs()
    apart = torch.minimum(apart, torch.tensor(sides) - apart) if periodic else apart
    distance = apart.double().square().sum(-1).sqrt()
    found = connect.by_distance(shape, lambda d: (d <= 1.5).double(), periodic=periodic, delay=lambda d: 1 + d)
    assert torch.equal(key(found), (distance <= 1.5).flatten().nonzero().flatten())
    torch.testing.assert_close(found.delay, 1 + distance[distance <= 1.5])
    profile = lambda d: 0.6 * torch.exp(-d)  # noqa: E731
    runs = sum(
        torch.bincount(
            key(connect.by_distance(shape, profile, periodic=periodic, autapses=False, generator=seeded(k))),
            minlength=number**2,
        )
        for k in range(300)
    )
    chance = profile(distance).fill_diagonal_(0).flatten()
    worst = ((runs - 300 * chance).abs() - 5 * (300 * chance * (1 - chance)).sqrt()).max()
    assert worst <= 1


@pytest.mark.filterwarnings("ignore:Sparse CS")  # of torch, which calls them beta
@pytest.mark.parametrize("form", ["csr", "csc", "coo", "lil", "array", "torch coo", "torch csr", "torch csc", "dense"])
def test_sparse_matrices(form):
    dense = torch.zeros(3, 4, dtype=torch.float64)
    dense[0, 1], dense[2, 1], dense[1, 3] = 0.5, -1.5, 2.5
    given = {
        "array": lambda: sparse.csr_array(dense.numpy()),
        "torch coo": dense.to_sparse_coo,
        "torch csr": dense.to_sparse_csr,
        "torch csc": dense.to_sparse_csc,
        "dense": lambda: dense,
    }
    found = connect.from_sparse(
        given[form]() if form in given else sparse.csr_matrix(dense.numpy()).asformat(form), delay=2.0
    )
    assert (found.sources, found.targets) == (4, 3)
    assert found.source.tolist() == [1, 1, 3]
    assert found.target.tolist() == [0, 2, 1]
    assert found.weight.tolist() == [0.5, -1.5, 2.5]
    assert found.delay.tolist() == [2.0] * 3


def test_sparse_matrices_of_other_values():
    assert connect.from_sparse(sparse.csr_matrix(np.eye(3) > 0)).weight is None
    assert connect.from_sparse(sparse.csr_matrix(np.eye(3, dtype=int))).weight.tolist() == [1.0] * 3
    twice = sparse.coo_matrix(([1.0, 2.0], ([0, 0], [1, 1])), (2, 2))
    assert connect.from_sparse(twice).weight.tolist() == [3.0]
    assert twice.nnz == 2


def test_sonata_files(tmp_path):
    """Edges in any order, with their values, with others, and without."""
    ends = [3, 0, 2], [1, 2, 0]
    path = sonata(tmp_path, *ends, syn_weight=[0.1, 0.2, 0.3], delay=[1.0, 2.0, 3.0])
    found = connect.from_sonata(path, 4, 3)
    assert (found.sources, found.targets) == (4, 3)
    assert list(zip(found.source.tolist(), found.target.tolist(), strict=True)) == [(0, 2), (2, 0), (3, 1)]
    assert found.weight.tolist() == [0.2, 0.3, 0.1]
    assert found.delay.tolist() == [2.0, 3.0, 1.0]
    other = connect.from_sonata(str(path), 4, 3, "cortex_to_cortex", delay=1.5)
    assert other.weight.tolist() == found.weight.tolist()
    assert other.delay.tolist() == [1.5] * 3
    bare = connect.from_sonata(sonata(tmp_path, *ends), 4, 3)
    assert (bare.weight, bare.delay, len(bare)) == (None, None, 3)
    for arguments, line in (
        ((path, 3, 3), "source must be from 0 to 2, got 0 to 3"),
        (
            (path, 4, 3, "thalamus"),
            ".*edges.h5: expected SONATA edges, of one population and with one group: .*thalamus",
        ),
        ((tmp_path / "none.h5", 4, 3), ".*none.h5: expected SONATA edges, .*: .*No such file"),
        ((Path(__file__), 4, 3), ".*test_connect.py: expected SONATA edges, .*: .*"),
    ):
        with pytest.raises(ValueError, match=f"^{line}") as caught:
            connect.from_sonata(*arguments)
        assert "\n" not in str(caught.value)


def test_sums_and_slices():
    excites = connect.fixed_probability(8, 10, 0.5, weight=1.0, delay=2.0, generator=seeded()).at(sources=10)
    inhibits = connect.all_to_all(2, 10, weight=-1.0, delay=1.0).at(8)
    assert (excites.sources, inhibits.sources, inhibits.targets) == (10, 10, 10)
    both = inhibits + excites
    assert len(both) == len(excites) + 20
    assert torch.equal(both.source, torch.cat([excites.source, inhibits.source]))
    assert torch.equal(both.weight < 0, both.source >= 8)
    assert torch.equal(both.delay, torch.where(both.source >= 8, 1.0, 2.0).double())
    assert torch.equal(key(sum([excites, inhibits])), key(both))
    assert (both + both).multapses
    inner = connect.one_to_one(2).at(1, 3, 5, 6)
    assert (inner.sources, inner.targets, inner.source.tolist(), inner.target.tolist()) == (5, 6, [1, 2], [3, 4])
    later = connect.one_to_one(2).with_values(weight=torch.distributions.Normal(0.0, 1.0), generator=seeded())
    assert later.with_values(delay=1.5).weight is not None
    assert torch.equal(later.with_values().weight, later.weight)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64, np.int32])
def test_indices_of_any_whole_type(dtype):
    found = connect.pairs(np.array([[3, 0], [1, 2]], dtype=dtype), 4, 3)
    assert (found.source.tolist(), found.target.tolist()) == ([0, 3], [2, 1])


def test_only_synapses_are_added():
    with pytest.raises(TypeError, match="unsupported operand"):
        connect.one_to_one(3) + np.eye(3).tolist()


def test_a_million_synapses():
    """As many as asked, and no more than there is a place for: a matrix would have 10^11 entries."""
    found = connect.fixed_probability(400_000, 250_000, 1e-5, weight=0.5, generator=seeded())
    assert abs(len(found) - 1e6) < 5e3
    assert int(found.source.max()) > 399_000
    assert len(connect.fixed_indegree(400_000, 10_000, 100, generator=seeded())) == 10**6


def test_arguments():
    names = list(inspect.signature(connect.fixed_indegree).parameters)
    assert names == ["sources", "targets", "number", "autapses", "multapses", "weight", "delay", "generator"]
    assert "multapses: whether" in connect.fixed_indegree.__doc__
    for wrong in ({"autapses": False}, {"wieght": 1.0}):
        with pytest.raises(TypeError, match="unexpected keyword"):
            connect.one_to_one(3, **wrong)
    assert fs.connect is connect


ONE = connect.one_to_one(3)
ERRORS = {
    "source": (lambda: connect.pairs([[0, 4], [0, 0]], 4, 3), r"^source must be from 0 to 3, got 0 to 4$"),
    "target": (lambda: connect.pairs([[0, 1], [0, -1]], 4, 3), r"^target must be from 0 to 2, got -1 to 0$"),
    "floats": (
        lambda: connect.pairs([[0.0], [1.0]], 4, 3),
        r"^source must be whole numbers \(synapses,\), got torch.float32 \(1,\); long\(\) makes them whole$",
    ),
    "index": (
        lambda: connect.pairs([[0, 1, 2]], 4, 3),
        r"^index must have the shape \(2, synapses\), .* got \(1, 3\)$",
    ),
    "twice": (
        lambda: connect.pairs([[0, 0], [1, 1]], 4, 3),
        r"^index has pairs more than once; multapses=True allows that$",
    ),
    "ragged": (
        lambda: connect.pairs([[0, 1], [0]], 4, 3),
        r"^index must be numbers, in a tensor or an array, got list$",
    ),
    "no index": (lambda: Synapses(3, 3, None, [0]), r"^source must be numbers, .*, got NoneType$"),
    "text": (lambda: connect.one_to_one(2, weight="0.5"), r"^weight must be numbers, .*, got str$"),
    "complex": (lambda: connect.one_to_one(2, weight=torch.ones(2) * 1j), r"^weight must .*, got torch.complex64$"),
    "huge unsigned": (
        lambda: connect.pairs(np.array([[0, 2**63], [0, 0]], dtype=np.uint64), 4, 3),
        r"^source must be from 0 to 3, got -\d+ to 0$",
    ),
    "drawn delays": (
        lambda: connect.one_to_one(300, delay=torch.distributions.Normal(0.0, 1.0)),
        r"^delay must be finite and >= 0, got -",
    ),
    "lengths": (lambda: Synapses(3, 3, [0, 1], [0]), r"^source and target must be equally long, got 2 and 1$"),
    "negative": (lambda: ONE.with_values(delay=-0.5), r"^delay must be finite and >= 0, got -0.5 to -0.5$"),
    "NaN delay": (
        lambda: connect.one_to_one(2, delay=[1, math.nan]),
        r"^delay must be finite and >= 0, got nan to nan$",
    ),
    "NaN": (lambda: connect.one_to_one(2, weight=math.nan), r"^weight must be finite, got nan to nan$"),
    "inf": (lambda: connect.one_to_one(2, weight=math.inf), r"^weight must be finite, got inf to inf$"),
    "values": (
        lambda: connect.one_to_one(2, weight=torch.rand(3)),
        r"^weight must be a number, or one for each of 2 synapses, got \(3,\)$",
    ),
    "probability": (lambda: connect.fixed_probability(3, 3, 1.5), r"^probability must be >= 0 and <= 1, got 1\.5$"),
    "NaN probability": (
        lambda: connect.fixed_probability(3, 3, math.nan),
        r"^probability must be >= 0 and <= 1, got nan$",
    ),
    "size": (lambda: connect.fixed_probability(0, 3, 0.5), r"^sources must be > 0 and <= 1000000, got 0$"),
    "indegree": (
        lambda: connect.fixed_indegree(3, 5, 4),
        r"^number must be at most 3, .* got 4; multapses=True draws with replacement$",
    ),
    "autapses": (
        lambda: connect.fixed_outdegree(5, 5, 5, autapses=False),
        r"^number must be at most 4, .* got 5; multapses=True",
    ),
    "nothing": (
        lambda: connect.fixed_outdegree(1, 1, 5, autapses=False, multapses=True),
        r"^number must be at most 0, .* got 5$",
    ),
    "square": (
        lambda: connect.all_to_all(3, 4, autapses=False),
        r"^autapses=False needs as many sources as targets, got 3 and 4$",
    ),
    "all": (lambda: connect.all_to_all(10**6, 10**6), r"^there can be at most 2147483647 synapses, got 1000000000000$"),
    "most": (
        lambda: connect.fixed_probability(10**6, 10**6, 0.01),
        r"^there can be at most 2147483647 synapses, got 10000000000$",
    ),
    "number": (
        lambda: connect.fixed_indegree(10**6, 10**6, 3000),
        r"^there can be at most 2147483647 synapses, got 3000000000$",
    ),
    "shape": (
        lambda: connect.by_distance((3, 0), torch.exp),
        r"^shape must be a whole number > 0, or several, got \(3, 0\)$",
    ),
    "profile": (
        lambda: connect.by_distance(2, torch.exp),
        r"^probability must give a number from 0 to 1 for each of 2 distances, got 1 to 2.71828 in ",
    ),
    "matrix": (
        lambda: connect.from_sparse([[1]]),
        r"^matrix must be one of scipy.sparse or a tensor of torch, of two dimensions, got list$",
    ),
    "dimensions": (lambda: connect.from_sparse(torch.ones(3)), r"^matrix must .*, got 1 dimensions$"),
    "sum": (
        lambda: ONE + connect.one_to_one(4),
        r"^Synapses\(3 sources, 3 targets, 3 synapses\) \+ Synapses\(4.*: sizes differ; at\(",
    ),
    "sum of values": (
        lambda: ONE + ONE.with_values(delay=1.0),
        r": only one has a delay; with_values\(delay=...\) sets it$",
    ),
    "slice": (lambda: ONE.at(2, 0, 4, 3), r"^source must be from 0 to 3, got 2 to 4$"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    make, message = ERRORS[name]
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
