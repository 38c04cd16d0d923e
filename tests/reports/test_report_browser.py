"""Reports in a browser: nothing goes wrong, nothing is asked of the network, and all can be chosen, by keyboard too."""

import numpy as np
import pytest

import firstspike as fs
import python_runs
from firstspike.plots.yin_yang import plane_of
from firstspike.reports.write import write_report

pytestmark = pytest.mark.browser

PAGES = ("bars", "yin_yang", "seeds", "sweep")
MADE_IN_PYTHON = ("plain_module", "images", "more_outputs_than_classes", "seeds_with_only_training_data")
FRAME = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


@pytest.fixture(scope="module")
def reports(report_runs, tmp_path_factory):
    pages = {name: write_report(report_runs / name, report_runs / f"{name}_page.html") for name in PAGES}
    for name in MADE_IN_PYTHON:
        folder, parts = python_runs.KINDS[name](tmp_path_factory.mktemp("python") / name)
        pages[name] = write_report(fs.Run(folder, **parts))
    return pages


@pytest.fixture
def show(chromium, reports):
    """Opens a page, and at the end sees that it said nothing on the console and asked for nothing but itself."""
    opened = []

    def show(name, **options):
        context = chromium.new_context(**({"viewport": {"width": 1100, "height": 900}} | options))
        page = context.new_page()
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        opened.append((context, reports[name], said, asked))
        page.goto(reports[name].as_uri())
        page.wait_for_selector("body[data-ready]", timeout=60_000)
        return page

    yield show
    for context, path, said, asked in opened:
        context.close()
        assert said == []
        assert asked == [path.as_uri()]


def shown(page, chart):
    """The numbers in a chart: a list of all its x, and of all its y."""
    page.evaluate(FRAME)
    return page.evaluate("(chart) => document.querySelector(chart).data.map((trace) => [trace.x, trace.y])", chart)


LOOKS = [(360, "light"), (1100, "dark")]
LOOKS += [pytest.param(*x, marks=pytest.mark.exhaustive) for x in [(360, "dark"), (1100, "light")]]


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
@pytest.mark.parametrize("name", PAGES)
def test_page_opens(show, name, scheme, width):
    page = show(name, color_scheme=scheme, viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, back.removeprefix("rgb(").removesuffix(")").split(","))) > 380) == (scheme == "light")
    assert page.locator(".chart svg.main-svg").count() > 0 or name == "sweep"
    assert not page.locator("#problem").is_visible()


@pytest.mark.parametrize("name", MADE_IN_PYTHON)
def test_page_of_a_run_made_in_python(show, name):
    page = show(name)
    split = "test" if name != "seeds_with_only_training_data" else "train"
    assert page.locator("#sample-said").text_content().startswith(f"Sample 0 of the {split} data: true class class 0, ")
    assert f" {split} samples (epoch_0003)" in page.locator("#confusion-said").text_content()
    assert page.locator("#membrane").is_visible() == (name != "plain_module")
    if name == "plain_module":
        assert "the layers of a Plain are not known" in page.locator("#membrane-said").text_content()
    assert page.locator("#training img").evaluate("(image) => image.naturalWidth") > 100


def test_what_gets_into_the_page_does_not_run(chromium, reports):
    context = chromium.new_context()
    page = context.new_page()
    page.goto(reports["bars"].as_uri())
    page.wait_for_selector("body[data-ready]", timeout=60_000)
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.ran = true";
          document.head.append(script);
          document.body.insertAdjacentHTML("beforeend", "<button id='in' onclick='window.ran = true'>x</button>");
          document.getElementById("in").click();
        }"""
    )
    page.evaluate(FRAME)
    assert page.evaluate("window.ran === undefined")
    assert len(said) == 2
    assert all("Content Security Policy" in text for text in said)
    context.close()


def test_samples_are_picked_one_after_the_other(show, yin_yang_data):
    page = show("yin_yang")
    raster, membrane = shown(page, "#raster"), shown(page, "#membrane")
    page.focus("#after")
    page.keyboard.press("Enter")
    assert page.input_value("#number") == "1"
    assert page.locator("#sample-said").text_content().startswith("Sample 1 of the test data: true class ")
    assert shown(page, "#raster") != raster
    assert shown(page, "#membrane") != membrane
    output = [time for trace in shown(page, "#raster")[-1:] for time in trace[0]]
    times = yin_yang_data.record.output[1].numpy()
    np.testing.assert_allclose(output, times[np.isfinite(times)], atol=6e-5)
    page.click("#before")
    assert shown(page, "#raster") == raster
    page.fill("#number", "37")
    page.keyboard.press("Enter")
    assert page.locator("#sample-said").text_content().startswith("Sample 37 of the test data: ")


def test_samples_are_picked_among_wrong_ones(show, yin_yang_data):
    page = show("yin_yang")
    evaluation = yin_yang_data.evaluation
    wrong = (evaluation.predictions != evaluation.labels).nonzero().flatten().tolist()
    page.select_option("#filter", "wrong")
    assert page.input_value("#number") == str(wrong[0])
    page.click("#before")
    assert page.input_value("#number") == str(wrong[-1])
    assert page.locator("#sample-said").text_content().endswith("wrong.")
    button = page.locator("#matrix td button").first
    count = int(button.text_content())
    button.click()
    assert page.evaluate("document.getElementById('filter').value").startswith("cell ")
    assert page.locator("#filter option:checked").text_content().endswith(f"({count})")


def test_sample_is_picked_on_the_map(show, yin_yang_data):
    page = show("yin_yang")
    points = plane_of(yin_yang_data).coordinates(yin_yang_data.data.test.times)
    place = (0.8, 0.3)
    page.locator("#plane").scroll_into_view_if_needed()
    x, y = page.evaluate(
        """([x, y]) => {
          const plane = document.getElementById("plane"), box = plane.getBoundingClientRect();
          const { xaxis, yaxis } = plane._fullLayout;
          return [box.x + xaxis._offset + xaxis.l2p(x), box.y + yaxis._offset + yaxis.l2p(y)];
        }""",
        place,
    )
    page.mouse.move(x, y)
    page.mouse.click(x, y)
    nearest = int(np.hypot(*(points - place).T).argmin())
    page.wait_for_function("(number) => document.getElementById('number').value === number", arg=str(nearest))
    ring = shown(page, "#plane")[-1]
    np.testing.assert_allclose([ring[0][0], ring[1][0]], points[nearest], atol=6e-5)


def test_charts_follow_the_scheme(show):
    page = show("bars", color_scheme="light")
    colours = "() => document.getElementById('raster').layout.font.color"
    before = page.evaluate(colours)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"(before) => ({colours})() !== before", arg=before)


def test_seed_is_chosen(show):
    page = show("seeds")
    raster, matrix = shown(page, "#raster"), page.locator("#matrix").text_content()
    page.select_option("#member", "1")
    assert (shown(page, "#raster"), page.locator("#matrix").text_content()) != (raster, matrix)
    assert page.locator("[data-member='1'] img").first.is_visible()
    assert not page.locator("[data-member='0'] img").first.is_visible()


def test_image_is_the_input(show):
    page = show("bars")
    image = "() => document.getElementById('input').data[0].z"
    seen = {str(page.evaluate(image))}
    for _ in range(4):
        page.click("#after")
        page.evaluate(FRAME)
        seen.add(str(page.evaluate(image)))
    assert len(seen) > 1
    assert len(page.evaluate(image)) == 3


def test_table_sorts_and_links(show, report_runs):
    page = show("sweep")
    heads = page.locator("#runs th")
    rate = heads.all_text_contents().index("training.optimizer.lr")

    def column():
        return [float(text) for text in page.locator(f"#runs tbody td:nth-child({rate + 1})").all_text_contents()]

    assert column() == [0.001, 0.1, 0.01]
    heads.nth(rate).locator("button").focus()
    page.keyboard.press("Enter")
    assert column() == [0.001, 0.01, 0.1]
    assert heads.nth(rate).get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Enter")
    assert column() == [0.1, 0.01, 0.001]
    links = [page.evaluate("(link) => link.href", link) for link in page.locator("#runs tbody a").element_handles()]
    assert links[0].startswith((report_runs / "sweep" / "0001").as_uri())
