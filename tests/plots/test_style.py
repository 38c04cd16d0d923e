import itertools
import math

import numpy as np
from matplotlib.colors import to_rgb

from firstspike.plots.look import COLOURS, label_lines, line_style, marker_style, panels

# what people with a missing kind of cones see, in linear RGB (Machado et al. 2009)
SEEN = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    "all cones": np.eye(3),
}


def lab(linear):
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    x, y, z = np.cbrt(np.maximum(xyz / [0.9505, 1, 1.089], 1e-9))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_ten_classes_differ_in_colour_for_everyone():
    linear = [np.power(to_rgb(colour), 2.2) for colour in COLOURS]
    assert len(linear) == 10
    for seen in SEEN.values():
        shades = [lab(np.clip(np.asarray(seen) @ colour, 0, 1)) for colour in linear]
        assert min(math.dist(a, b) for a, b in itertools.combinations(shades, 2)) > 12


def test_styles_differ():
    assert len({str(line_style(index)) for index in range(30)}) == 30
    assert len({str(marker_style(index)) for index in range(40)}) == 40


def test_names_of_lines_stay_apart_and_in_the_panel(ax):
    for index, height in enumerate((1.0, 1.0, 1.001, 0.0)):
        ax.plot([0, 1, 2], [0.5, 0.5, height], label=str(index))
    ax.plot([0, 1], [math.nan, math.nan], label="silent")
    label_lines(ax)
    heights = {text.get_text(): text.get_position()[1] for text in ax.texts}
    assert set(heights) == set("0123")
    ordered = sorted(heights.values())
    assert min(np.diff(ordered)) > 0.01
    assert max(ordered) <= 1.05
    assert heights["3"] == ordered[0]


def test_panels_that_are_not_needed_are_not_drawn():
    figure, axes = panels(5, 3, (2.0, 1.0), (1.0, 0.5))
    assert figure.get_size_inches().tolist() == [7.0, 2.5]
    assert (len(axes), sum(ax.get_visible() for ax in figure.axes)) == (5, 5)
