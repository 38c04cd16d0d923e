import numpy as np
import torch

from firstspike import plots


def test_histogram_before_and_after(ax):
    assert plots.weight_histogram(torch.zeros(4, 5), torch.ones(4, 5), ax) is ax
    ax.figure.draw_without_rendering()
    assert sum(bar.get_height() for bar in ax.containers[0]) == 20
    assert {text for _, text in zip(*ax.get_legend_handles_labels(), strict=True)} == {"before", "after"}


def test_matrix_is_the_weight_with_zero_in_the_middle(ax):
    weight = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
    assert plots.weight_matrix(weight, ax) is ax
    ax.figure.draw_without_rendering()
    image = ax.images[0]
    np.testing.assert_allclose(image.get_array(), weight.double())
    low, high = image.get_clim()
    assert low == -high == -float(weight.abs().max())


def test_matrix_of_zeros(ax):
    plots.weight_matrix(torch.zeros(1, 1), ax).figure.draw_without_rendering()


def test_receptive_fields_share_a_scale_around_zero(axes):
    weight = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    assert plots.receptive_fields(weight, axes, ["a", "b", "c"]) == list(axes)
    axes[0].figure.draw_without_rendering()
    for ax, field in zip(axes, weight.double(), strict=True):
        np.testing.assert_allclose(ax.images[0].get_array(), field)
        assert ax.images[0].get_clim() == (-float(weight.abs().max()), float(weight.abs().max()))


def test_synapses_are_whole_numbers(ax):
    plots.weight_histogram(torch.zeros(1, 3), torch.ones(1, 3), ax).figure.draw_without_rendering()
    assert all(tick == int(tick) for tick in ax.get_yticks())
