"""The interactive figure of the documentation's first page: its numbers are those of the operator, and it can be moved
by mouse, touch and keyboard."""

import math
import os
import re

import pytest
import torch

import firstspike as fs
from test_docs import DOCS

pytestmark = pytest.mark.browser

FOLDER = DOCS / "_static" / "first_spike"
PICTURE = DOCS / "first_spike.svg"
PAGE = f"""<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<link rel="stylesheet" href="{(FOLDER / "figure.css").as_uri()}">
<link rel="stylesheet" href="{(FOLDER / "drawing.css").as_uri()}">
<body style="font: 16px sans-serif; margin: 8px"><p><img src="{PICTURE.as_uri()}" alt=""></p>
<script src="{(FOLDER / "solve.js").as_uri()}"></script><script src="{(FOLDER / "figure.js").as_uri()}"></script>"""


STILL = """() => {
  const drawing = document.querySelector(".drawing").cloneNode(true);
  for (const name of ["role", "aria-label", "style"]) drawing.removeAttribute(name);
  drawing.setAttribute("width", drawing.getAttribute("viewBox").split(" ")[2]);
  for (const handle of drawing.querySelectorAll(".handle")) {
    for (const { name } of [...handle.attributes]) if (name !== "transform") handle.removeAttribute(name);
    handle.querySelector("[fill=transparent]").remove();
  }
  const text = new XMLSerializer().serializeToString(drawing);
  return text.replace(/\\n\\s*\\n/g, "\\n").replace(/><(path|text|g|circle)/g, ">\\n<$1");
}"""
"""The drawing as a picture: nothing to grasp, one element a line."""


@pytest.fixture
def show(chromium, tmp_path):
    """Opens the figure, and at the end sees that it said nothing on the console."""
    (tmp_path / "page.html").write_text(PAGE)
    opened, said = [], []

    def show(**options):
        context = chromium.new_context(**({"viewport": {"width": 800, "height": 900}} | options))
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto((tmp_path / "page.html").as_uri())
        page.wait_for_selector(".first-spike[data-ready]")
        opened.append(context)
        return page

    yield show
    for context in opened:
        context.close()
    assert said == []


def exact(times, weights, tau):
    """Spike time and its derivatives by times and weights, of the operator."""
    t = torch.tensor([times], dtype=torch.float64, requires_grad=True)
    w = torch.tensor([weights], dtype=torch.float64, requires_grad=True)
    out = fs.first_spike_time(t, w, fs.LIF(tau_mem=tau), backend="reference")
    out.sum().backward()
    return out.item(), t.grad[0].tolist(), w.grad[0].tolist()


def test_numbers_are_those_of_the_operator(show):
    page = show()
    generator = torch.Generator().manual_seed(0)
    spikes = 0
    for tau in (1.0, 2.0, math.inf, 0.25, 0.9, 1.0001, 7.5, 16.0):
        for n_inputs in (1, 2, 4, 4, 4, 4, 9, 9):
            times = (5 * torch.rand(n_inputs, generator=generator, dtype=torch.float64)).tolist()
            weights = (6 * torch.rand(n_inputs, generator=generator, dtype=torch.float64) - 2).tolist()
            expected, by_time, by_weight = exact(times, weights, tau)
            call = "([times, weights, tau]) => firstSpike.solve(times, weights, tau)"
            found = page.evaluate(call, [times, weights, tau])
            assert found["T"] == pytest.approx(expected, rel=1e-9)
            if math.isinf(expected):
                assert found["byTime"] is None
                assert found["byWeight"] is None
                assert 0 <= found["highest"] < 1
                continue
            spikes += 1
            assert found["byTime"] == pytest.approx(by_time, rel=1e-6, abs=1e-9)
            assert found["byWeight"] == pytest.approx(by_weight, rel=1e-6, abs=1e-9)
            assert sum(found["byTime"]) == pytest.approx(1)
    assert 20 < spikes < 60


def test_edge_of_the_area_in_which_the_spike_is_lost(show):
    page = show()
    times, weights = [0.4, 1.0, 1.5, 3.2], [1.6, -0.6, 2.5, 1.0]
    for tau in (1.0, 2.0, math.inf):
        for t in (0.3, 1.2, 1.6, 2.5):
            call = "([times, weights, tau, t]) => firstSpike.edge(times, weights, tau, 2, t, -3, 3)"
            edge = page.evaluate(call, [times, weights, tau, t])
            at = [*times[:2], t, times[3]]
            for w, spikes in ((edge + 1e-4, True), (edge - 1e-4, False)):
                if -3 < w < 3:
                    found, _, _ = exact(at, [*weights[:2], w, weights[3]], tau)
                    assert math.isfinite(found) == spikes
    assert -3 < page.evaluate(call, [times, weights, 1.0, 1.5]) < 3


def numbers(page):
    """Time, weight and both derivatives of every input, as the table shows them."""
    shown = page.evaluate(
        """() => [...document.querySelectorAll(".first-spike tbody tr")].map((row) =>
          [...row.querySelectorAll("td")].map((x) => (x.querySelector("input") ?? { value: x.textContent }).value))"""
    )
    return [[float(x.replace("\N{MINUS SIGN}", "-")) if x != "none" else None for x in row] for row in shown]


def check(page, tau=1.0):
    """The table and the sentence say what the operator says."""
    rows = numbers(page)
    expected, by_time, by_weight = exact([row[0] for row in rows], [row[1] for row in rows], tau)
    said = page.locator(".said").text_content()
    if math.isinf(expected):
        assert said.startswith("No spike: T = ∞.")
        assert all(row[2:] == [None, None] for row in rows)
    else:
        assert said.startswith(f"First spike at T = {expected:.2f}.")
        assert [row[2] for row in rows] == pytest.approx(by_time, abs=0.006)
        assert [row[3] for row in rows] == pytest.approx(by_weight, abs=0.006)
    return rows


def middle(page, number):
    box = page.locator(f".handle:nth-child({number}) .knob").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_input_is_dragged_until_the_spike_is_lost(show):
    page = show()
    before = check(page)
    curve = page.locator(".membrane").get_attribute("d")
    x, y = middle(page, 1)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 20, y - 10, steps=4)
    after = check(page)
    assert after[0][0] > before[0][0]
    assert after[0][1] > before[0][1]
    assert after[1:] != before[1:]  # the derivatives
    assert page.locator(".membrane").get_attribute("d") != curve
    page.mouse.move(x, y + 150, steps=4)
    page.mouse.up()
    assert check(page)[0][2] is None
    page.mouse.move(x, y)
    assert check(page)[0][2] is None  # it was let go
    page.click(".reset")
    assert check(page) == before


def test_input_is_dragged_by_touch(show):
    page = show(has_touch=True, viewport={"width": 390, "height": 844})
    before = check(page)
    x, y = middle(page, 1)
    session = page.context.new_cdp_session(page)
    for kind, points in (
        ("touchStart", [{"x": x, "y": y}]),
        ("touchMove", [{"x": x + 10, "y": y - 20}]),
        ("touchMove", [{"x": x + 30, "y": y - 40}]),
        ("touchEnd", []),
    ):
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    after = check(page)
    assert after[0][0] > before[0][0]
    assert after[0][1] > before[0][1]
    assert page.evaluate("scrollY") < 10  # the page does not move with the finger


def test_input_is_moved_by_keyboard(show):
    page = show()
    before = check(page)
    handle = page.locator(".handle:nth-child(1)")
    handle.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowUp")
    after = check(page)
    assert after[0][:2] == pytest.approx([before[0][0] + 0.05, before[0][1] + 0.25])
    assert handle.get_attribute("aria-valuetext") == "time 0.45, weight 1.85"
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    assert check(page)[1][1] == pytest.approx(before[1][1] - 0.05)
    for _ in range(60):
        page.keyboard.press("ArrowLeft")
    assert check(page)[1][0] == 0


def test_time_constants_are_chosen(show):
    page = show()
    for ratio in ("2", "Infinity", "1"):
        page.check(f"[type=radio][value='{ratio}']")
        check(page, float(ratio.replace("Infinity", "inf")))
    page.focus("[type=range]")
    page.keyboard.press("ArrowRight")
    assert page.locator("output").text_content() == "1.04"
    assert page.locator("[type=radio]:checked").count() == 0
    check(page, 2**0.05)


def test_spike_is_almost_lost(show):
    page = show()
    page.focus(".handle:nth-child(3)")
    before = check(page)
    page.click(".lose")
    rows = numbers(page)
    assert max(abs(row[3]) for row in rows) > 2 * max(abs(row[3]) for row in before)
    page.fill("[aria-label='weight of input 3']", f"{rows[2][1] - 0.02:.2f}")
    assert check(page)[0][2] is None
    x, y = middle(page, 3)
    area = page.evaluate("() => document.querySelector('.lost').getBoundingClientRect().toJSON()")
    assert area["left"] < x < area["right"]
    assert area["top"] < y < area["bottom"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figure_fits_a_narrow_screen(show, scheme):
    page = show(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    paper = page.evaluate("getComputedStyle(document.querySelector('.paper')).fill")
    assert (sum(map(int, re.findall(r"\d+", paper))) > 380) == (scheme == "light")


def test_picture_without_scripts_is_the_figure(show):
    """``FIRSTSPIKE_WRITE=1`` writes it."""
    page = show(viewport={"width": 736, "height": 900})
    names = re.findall(r"--\w+(?=:)", (FOLDER / "figure.css").read_text())
    call = """(names) => {
      const style = getComputedStyle(document.querySelector(".first-spike"));
      return names.map((name) => `${name}: ${style.getPropertyValue(name)};`).join(" ");
    }"""
    colours = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colours[scheme] = page.evaluate(call, sorted(set(names)))
    drawing = page.evaluate(STILL)
    style = f"svg {{ {colours['light']} }} @media (prefers-color-scheme: dark) {{ svg {{ {colours['dark']} }} }}"
    rules = (FOLDER / "drawing.css").read_text().partition("*/\n")[2]
    picture = drawing.replace("<defs>", f"<style>\n{style}\n{rules}</style>\n<defs>", 1) + "\n"
    if os.environ.get("FIRSTSPIKE_WRITE"):
        PICTURE.write_text(picture, encoding="utf-8")
    assert PICTURE.read_text(encoding="utf-8") == picture
