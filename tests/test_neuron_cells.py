"""Neurons and weights by the names and in the units of PyNN and NEST."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch

import firstspike as fs
from firstspike import LIF, SpikeTrains
from firstspike.neurons import AdaptiveLIF, AdEx, Cell, ConductanceLIF, Izhikevich
from firstspike.neurons.cells import CELLS

DOUBLE = {"dtype": torch.float64}
PYNN = [name for name, model in CELLS.items() if model.small]
EXP = {"cm": 0.25, "tau_m": 20.0, "tau_syn_E": 5.0, "tau_syn_I": 5.0, "v_rest": -65.0, "v_thresh": -50.0}


@pytest.mark.parametrize(
    ("cell", "neuron"),
    [
        (
            Cell("IF_curr_exp", **EXP, tau_refrac=2.0, v_reset=-67.0, i_offset=0.1),
            LIF(20.0, 5.0, 15.0, reset=-2.0, refractory=2.0, bias=8.0),  # 0.1 nA through 80 MOhm
        ),
        (Cell("IF_curr_exp", tau_syn_I=8.0), LIF(20.0, (5.0, 8.0), 15.0, refractory=0.1)),
        (Cell("iaf_psc_exp_ps", I_e=50.0), LIF(10.0, 2.0, 15.0, refractory=2.0, bias=2.0)),
        (Cell("iaf_psc_alpha"), LIF(10.0, 2.0, 15.0, refractory=2.0, tau_rise=2.0)),
        (
            Cell("IF_cond_exp", v_thresh=-45.0),
            ConductanceLIF(20.0, (5.0, 5.0), 20.0, refractory=0.1, reversal=(65.0, -5.0)),
        ),
        (
            Cell("iaf_cond_exp", g_L=10.0, V_reset=-70.0),
            ConductanceLIF(25.0, (0.2, 2.0), 15.0, refractory=2.0, reversal=(70.0, -15.0)),
        ),
        (Cell("aeif_psc_exp", tau_syn_in=0.2, V_peak=-40.0, V_reset=-70.6), AdEx(tau_syn=0.2)),
        (
            Cell("mat2_psc_exp", omega=-50.0, tau_syn_in=1.0),
            AdaptiveLIF(
                5.0, 1.0, 20.0, reset=None, refractory=2.0, threshold_adaptation=[(10.0, 37.0), (200.0, 2.0)]
            ),
        ),
    ],
    ids=lambda x: getattr(x, "name", "") and f"{x.name}, {x.neuron.named_values['refractory']}",
)  # fmt: skip
def test_neurons_by_hand(cell, neuron):
    assert cell.neuron == neuron


@pytest.mark.parametrize(
    ("cell", "excites", "inhibits"),
    [
        (Cell("IF_curr_exp", cm=0.25, tau_syn_I=10.0), 20.0, 40.0),  # 1 nA * 5 ms / 0.25 nF = 20 mV
        (Cell("IF_curr_alpha", cm=0.5, tau_syn_I=2.0), math.e, 4 * math.e),  # the weight is the maximum
        (Cell("IF_curr_delta"), 1.0, 1.0),
        (Cell("IF_cond_exp", cm=0.5), 40.0, 40.0),  # 1 uS of a leak of 0.025 uS
        (Cell("EIF_cond_exp_isfa_ista"), 1000.0, 1000.0),
        (Cell("Izhikevich"), 1.0, 1.0),
        (Cell("iaf_psc_exp", C_m=100.0, tau_syn_in=3.0), 0.02, 0.03),
        (Cell("iaf_cond_exp", g_L=10.0), 0.1, 0.1),
        (Cell("aeif_psc_exp"), 1.0, 1.0),
        (Cell("mat2_psc_exp"), 0.01, 0.03),
    ],
    ids=lambda x: getattr(x, "name", ""),
)
def test_weights_by_hand(cell, excites, inhibits):
    assert cell.weights(2) == pytest.approx(2 * excites)
    assert cell.weights(-2.0) == pytest.approx(-2 * inhibits)
    weight = torch.tensor([[2.0, -2.0], [0.0, 1.0]])
    wanted = torch.tensor([[2 * excites, -2 * inhibits], [0.0, excites]])
    for given in (weight, weight.numpy(), weight.tolist()):
        torch.testing.assert_close(cell.weights(given), wanted)
    torch.testing.assert_close(cell.strengths(wanted), weight)


@pytest.mark.parametrize("name", [name for name, model in CELLS.items() if "cond" in name])
def test_conductances_that_inhibit(name):
    """Signs choose, as in NEST, receptors by number do, as in PyNN, and no inhibition becomes excitation in silence."""
    cell, times = Cell(name), torch.linspace(1.0, 90.0, 90, **DOUBLE).expand(1, 2, -1)
    strength = (0.004 if name in PYNN else 4.0) * torch.tensor([[20.0, 100.0]], **DOUBLE)
    inhibits = torch.tensor([1.0, -1.0], **DOUBLE)

    def count(weight, receptor):
        layer = SpikeTrains(2, 1, 200, cell.neuron, until=100.0, receptor=receptor, overflow="drop", **DOUBLE)
        with torch.no_grad():
            layer.weight.copy_(cell.weights(weight))
        return int(layer(times).isfinite().sum())

    assert count(strength, [0, 0]) == count(strength, "sign") > 30
    assert count(strength, [0, 1]) == count(strength * inhibits, "sign") == 0
    with pytest.raises(ValueError, match=r"must be >= 0, as its synapses are conductances, got -"):
        count(strength * inhibits, [0, 1])


def test_weights_of_neurons_that_differ():
    cell = Cell("IF_curr_exp", cm=[0.25, 0.5], tau_syn_I=torch.tensor([10.0, 5.0]))
    weight = torch.ones(2, 3, requires_grad=True)
    signed = torch.tensor([1.0, 1.0, -1.0]) * weight
    found = cell.weights(signed)
    torch.testing.assert_close(found, torch.tensor([[20.0, 20.0, -40.0], [10.0, 10.0, -10.0]]))
    torch.testing.assert_close(cell.strengths(found), signed)
    found.sum().backward()
    torch.testing.assert_close(weight.grad, found.detach())
    torch.testing.assert_close(cell.weights(1.0), torch.tensor([[20.0], [10.0]], **DOUBLE))


def other_values(name):
    """Values of all parameters of a cell that are not the default, those of some for each of two neurons."""
    source = torch.Generator().manual_seed(3)
    found = {}
    for number, (key, x) in enumerate(CELLS[name].defaults.items()):
        factor = 1 + 0.01 * (1 + torch.rand(2, generator=source, **DOUBLE))
        value = x * factor + 0.001
        found[key] = value if number % 3 == 0 else float(value[0])
    return found


@pytest.mark.parametrize(
    ("name", "key"), [("IF_curr_exp", "i_offset"), ("aeif_psc_exp", "I_e"), ("IF_curr_delta", "i_offset")]
)
def test_a_constant_current_is_the_offset(name, key):
    """For two neurons that differ, in nA of PyNN and pA of NEST."""
    amplitude = 0.6 if key == "i_offset" else 900.0
    cm = {"cm": [0.5, 1.0]} if key == "i_offset" else {"C_m": [250.0, 281.0]}
    cell, driven = fs.neurons.Cell(name, **cm), fs.neurons.Cell(name, **cm, **{key: amplitude})
    values = cell.currents(torch.full((1,), amplitude, dtype=torch.float64))
    given = torch.full((1, 1, 1), torch.inf, dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64)
    options = {"max_spikes": 40, "until": 100.0}
    options["receptor"] = [0] if len(cell.neuron.receptors) > 1 else None
    expected = fs.spike_trains(*given, driven.neuron, **options)
    current = fs.Current(torch.zeros(1, dtype=torch.float64), values)
    assert expected.isfinite().any()
    torch.testing.assert_close(fs.spike_trains(*given, cell.neuron, **options, current=current), expected)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("values", [lambda name: {}, other_values], ids=["defaults", "others"])
def test_a_cell_of_its_neuron_is_the_same(name, values):
    cell = Cell(name, **values(name))
    free = {key: cell.parameters[key] for key in ("cm", "C_m", "v_rest", "E_L") if key in cell.parameters}
    found = Cell.of(cell.neuron, name, **free)
    assert found.parameters.keys() == CELLS[name].defaults.keys()
    for key, x in cell.parameters.items():
        both = torch.broadcast_tensors(*(torch.as_tensor(y, **DOUBLE) for y in (found.parameters[key], x)))
        torch.testing.assert_close(*both, rtol=1e-13, atol=1e-13)
    for copied in (copy.deepcopy(cell), pickle.loads(pickle.dumps(cell))):
        assert copied.neuron == cell.neuron
        assert repr(copied) == repr(cell)


def test_the_cell_of_a_layer_that_learns():
    layer = SpikeTrains(3, 2, 5, LIF(20.0, (5.0, 5.0), 15.0), receptor="sign", trainable=["tau_mem"], per_neuron=True)
    cell = Cell.of(layer.neuron, "IF_curr_exp", cm=0.5, v_rest=-60.0)
    assert (cell.parameters["v_thresh"], cell.parameters["tau_syn_E"], cell.parameters["cm"]) == (-45.0, 5.0, 0.5)
    torch.testing.assert_close(cell.parameters["tau_m"], torch.full((2,), 20.0, **DOUBLE))
    torch.testing.assert_close(cell.weights(cell.strengths(layer.weight)), layer.weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_periods_of_a_constant_current(dtype):
    cell = Cell("IF_curr_exp", cm=0.25, tau_refrac=3.0, i_offset=[0.25, 0.5], v_rest=-60.0, v_reset=-70.0)
    layer = SpikeTrains(1, 2, 20, cell.neuron, until=100.0, overflow="error", backend="reference", dtype=dtype)
    found = layer(torch.tensor([[math.inf]], dtype=dtype))[0]
    for current, spikes in zip((20.0, 40.0), found, strict=True):  # 80 MOhm
        first = 20.0 * math.log(current / (current - 10.0))
        period = 3.0 + 20.0 * math.log((current + 10.0) / (current - 10.0))
        wanted = torch.arange(first, 100.0, period, dtype=dtype)
        torch.testing.assert_close(spikes[spikes.isfinite()], wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Cell("IF_cur_exp"), "there is no cell 'IF_cur_exp', did you mean IF_curr_exp? there are "),
        (lambda: Cell("HH_cond_exp_traub_"), "there is no cell 'HH_cond_exp_traub_'"),
        (
            lambda: Cell("IF_curr_exp", tau_refract=5.0),
            "IF_curr_exp has no parameter 'tau_refract', did you mean tau_refrac? there are cm, tau_m, tau_refrac, ",
        ),
        (lambda: Cell("iaf_psc_exp", cm=0.25), "iaf_psc_exp has no parameter 'cm'"),
        (lambda: Cell("IF_curr_exp", cm=0), "cm must be > 0 and finite, or a tensor, got 0"),
        (lambda: Cell("IF_curr_exp", v_rest="-65 mV"), "v_rest must be finite, or a tensor, got '-65 mV'"),
        (lambda: Cell("IF_curr_exp", tau_syn_E=-1.0), "IF_curr_exp: relative to rest, tau_syn[0] must be > 0"),
        (lambda: Cell("IF_curr_exp", v_rest=-40.0), "IF_curr_exp: relative to rest, threshold must be > 0 and finite"),
        (lambda: Cell("aeif_psc_exp", V_reset=5.0), "aeif_psc_exp: reset must be below the threshold of 0.0, got 5.0"),
        (lambda: Cell.of(LIF(tau_rise=2.0), "IF_curr_exp"), "IF_curr_exp cannot have tau_rise=2.0: there it is 0.0"),
        (lambda: Cell.of(LIF(), "iaf_psc_alpha"), "iaf_psc_alpha cannot have tau_rise=0.0: there it is 1.0"),
        (
            lambda: Cell.of(LIF(reset=None, refractory=1.0), "IF_curr_exp"),
            "IF_curr_exp cannot have reset=None: there it is 0.0",
        ),
        (
            lambda: Cell.of(LIF(tau_syn=(1.0, 2.0, 3.0)), "IF_curr_exp"),
            "IF_curr_exp cannot have tau_syn=(1.0, 2.0, 3.0): there it is (1.0, 2.0)",
        ),
        (lambda: Cell.of(LIF(math.inf), "IF_curr_exp"), "tau_mem must be finite, or a tensor, got inf"),
        (lambda: Cell.of(LIF(2.0), "IF_curr_exp", tau_m=3.0), "IF_curr_exp cannot have tau_mem=2.0: there it is 3.0"),
        (lambda: Cell.of(LIF(2.0), "IF_curr_exp", g_L=3.0), "IF_curr_exp has no parameter 'g_L'"),
        (lambda: Cell.of(AdEx(), "iaf_psc_exp"), "iaf_psc_exp needs a neuron such as LIF(tau_mem=10.0, "),
        (lambda: Cell.of(Izhikevich(), "izhikevich"), "izhikevich needs a neuron such as Neuron('dv/dt = 0.04*v**2 + "),
        (lambda: Cell.of(Cell("Izhikevich").neuron, "izhikevich"), "izhikevich needs a neuron such as "),
    ],
)  # fmt: skip
def test_errors(wrong, message):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        wrong()
    assert str(error.value).startswith(message)


UNTIL = 150.0
SHAPE = torch.tensor([[4.0, 9.0, 7.0, -3.0], [3.0, 6.0, 9.0, -5.0], [8.0, 2.0, 5.0, -2.0]], **DOUBLE)
STEP = 0.002
TWO = {"tau_syn_in": 4.0}
NEST_START = {"v_rest": -70.0, "v_reset": -70.0, "v_thresh": -55.0}  # where PyNN lets its membrane begin
DRIVEN = {  # weights, parameters and receptors, and how many steps spikes may be late; 0: they are precise
    "iaf_psc_exp_ps": (250.0, {**TWO, "I_e": 200.0, "tau_m": [10.0, 12.0, 15.0], "V_reset": -72.0}, "sign", 0),
    "iaf_psc_alpha_ps": (110.0, {**TWO, "I_e": 200.0, "C_m": [250.0, 220.0, 260.0]}, "sign", 0),
    "iaf_psc_delta_ps": (1.9, {"I_e": 100.0}, None, 0),
    "iaf_psc_exp": (250.0, {**TWO, "I_e": 200.0}, "sign", 8),
    "iaf_psc_alpha": (110.0, {**TWO, "I_e": 200.0}, "sign", 12),
    "iaf_psc_delta": (1.9, {"I_e": 100.0}, None, 1),
    "iaf_cond_exp": (15.0, {"I_e": 100.0}, "sign", 8),
    "aeif_psc_exp": (600.0, {**TWO, "I_e": 900.0, "b": 20.0}, "sign", 8),
    "aeif_cond_exp": (14.0, {"I_e": 600.0, "b": 20.0}, "sign", 8),
    "izhikevich": (1.9, {"I_e": 6.0}, None, 50),
    "mat2_psc_exp": (200.0, {**TWO, "I_e": 500.0}, "sign", 4),
    "IF_curr_exp": (0.5, {"tau_syn_I": 8.0, "i_offset": 0.3, "tau_refrac": 2.0}, "sign", 12),
    "IF_curr_alpha": (0.5, {"tau_syn_E": 2.0, "tau_syn_I": 4.0, "i_offset": 0.3, "tau_refrac": 2.0}, "sign", 20),
    "IF_curr_delta": (1.9, {**NEST_START, "i_offset": 0.3, "tau_refrac": 2.0}, None, 2),
    "IF_cond_exp": (0.0012, {"cm": [0.25, 0.3, 0.35], "tau_refrac": 2.0}, "sign", 12),
    "EIF_cond_exp_isfa_ista": (0.002, {"i_offset": 0.6, "b": 0.04}, "sign", 12),
    "Izhikevich": (1.9, {"i_offset": 0.004}, None, 50),
}


def comb(offsets, seed=0):
    """Times of four inputs, no two of which are within the refractory times above; in one step, or in between."""
    source = np.random.default_rng(seed)
    times = np.arange(2.0, UNTIL, 2.2)
    times = np.round(times, 1) + source.uniform(0, 0.1, len(times)) * offsets
    owner = source.integers(0, 4, len(times))
    return [times[owner == k] for k in range(4)]


def of_nest(cell, weight, trains, precise):
    """Spikes of NEST, for inputs that take 1 ms to the cells."""
    nest = pytest.importorskip("nest")
    nest.ResetKernel()
    nest.verbosity = nest.VerbosityLevel.ERROR
    nest.resolution = 0.1 if precise else STEP
    population = nest.Create(cell.name, len(weight))
    for key, x in cell.parameters.items():
        population.set({key: x.tolist() if isinstance(x, torch.Tensor) else x})
    if "E_L" in cell.parameters:
        population.set(V_m=cell.parameters["E_L"])
    if cell.name.startswith("aeif"):
        population.set(gsl_error_tol=1e-9)
    for train, column in zip(trains, weight.T.tolist(), strict=True):
        source = nest.Create("spike_generator", params={"precise_times": precise, "spike_times": train - 1.0})
        for one, strength in zip(population, column, strict=True):
            nest.Connect(source, one, syn_spec={"weight": strength, "delay": 1.0})
    recorder = nest.Create("spike_recorder")
    nest.Connect(population, recorder)
    nest.Simulate(UNTIL + 1.0)
    senders, times = recorder.events["senders"], recorder.events["times"]
    return [times[senders == one.global_id] for one in population]


def of_pynn(cell, weight, trains):
    """Spikes of PyNN with NEST; weights of conductances are > 0 there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")  # with nest-config in it PyNN would compile neurons that are not needed
        sim = pytest.importorskip("pyNN.nest")
    options = {"timestep": STEP, "min_delay": STEP, "max_delay": 1.0, "spike_precision": "on_grid"}
    sim.setup(**options, verbosity="error")
    parameters = {key: x.tolist() if isinstance(x, torch.Tensor) else x for key, x in cell.parameters.items()}
    rest = {"v": parameters["v_rest"]} if "v_rest" in parameters else {}
    after = sim.Population(len(weight), getattr(sim, cell.name)(**parameters), initial_values=rest)
    for train, column, kind in zip(trains, weight.T, ["excitatory"] * 3 + ["inhibitory"], strict=True):
        before = sim.Population(1, sim.SpikeSourceArray(spike_times=train - 1.0))
        strength = column.abs() if "e_rev_I" in parameters else column
        synapses = sim.StaticSynapse(weight=strength.numpy()[None, :], delay=1.0)
        sim.Projection(before, after, sim.AllToAllConnector(), synapses, receptor_type=kind)
    after.record("spikes")
    sim.run(UNTIL + 1.0)
    spikes = after.get_data("spikes").segments[-1].spiketrains
    found = {train.annotations["source_index"]: np.asarray(train) for train in spikes}
    return [found[k] for k in range(len(weight))]


@pytest.mark.parametrize("name", DRIVEN)
@pytest.mark.nest
@pytest.mark.filterwarnings("ignore")  # those of PyNN
def test_spikes_are_those_of_nest(name):
    size, parameters, receptor, late = DRIVEN[name]
    cell, weight, trains = Cell(name, **parameters), size * SHAPE, comb(offsets=not late)
    there = of_pynn(cell, weight, trains) if name in PYNN else of_nest(cell, weight, trains, precise=not late)
    times = torch.full((4, max(map(len, trains))), math.inf, **DOUBLE)
    for k, train in enumerate(trains):
        times[k, : len(train)] = torch.from_numpy(train)
    layer = SpikeTrains(4, 3, 60, cell.neuron, until=UNTIL, receptor=receptor, **DOUBLE)
    with torch.no_grad():
        layer.weight.copy_(cell.weights(weight))
    for spikes, found in zip(layer(times[None])[0], there, strict=True):
        found = torch.from_numpy(np.sort(found[found < UNTIL]))
        spikes = spikes[spikes.isfinite()]
        assert len(spikes) == len(found) > 1
        torch.testing.assert_close(found, spikes, rtol=0, atol=late * STEP or 1e-9)


@pytest.mark.nest
def test_defaults_are_those_there():
    nest, cells = (pytest.importorskip(name) for name in ("nest", "pyNN.standardmodels.cells"))
    for name, model in CELLS.items():
        there = getattr(cells, name).default_parameters if name in PYNN else nest.GetDefaults(name)
        assert model.defaults == {key: there[key] for key in model.defaults}, name
        if name in PYNN:
            assert model.defaults.keys() == there.keys()


def test_volts_for_millivolts():
    with pytest.warns(UserWarning, match="v_rest=-0.065, v_thresh=-0.05: potentials are in mV here; multiply those in"):
        Cell("IF_curr_exp", v_rest=-0.065, v_thresh=-0.05)
    Cell("IF_curr_exp", v_rest=0.0, v_thresh=15.0, v_reset=0.0)  # no warning


@pytest.mark.parametrize(
    "value",
    [
        {}, [1.0, None], ["a"], (x for x in [1.0]), [-1.0], [0.0], [math.nan], torch.ones(1).to_sparse(), [1j],
        10**400, [10**400], torch.ones(1, device="meta"),
    ],
)  # fmt: skip
def test_parameters_of_other_kinds(value):
    with pytest.raises(ValueError, match=r"^cm must be .*(real numbers|> 0 and finite)"):
        Cell("IF_curr_exp", cm=value)


@pytest.mark.parametrize(
    "value", [None, "a", {}, object(), [[1.0], [2.0, 3.0]], torch.ones(2, 2).to_sparse(), 1j, 10**400]
)
@pytest.mark.parametrize("way", ["weights", "strengths"])
def test_weights_of_other_kinds(value, way):
    with pytest.raises(ValueError, match=r"^weight must be .*real numbers"):
        getattr(Cell("IF_cond_exp"), way)(value)
