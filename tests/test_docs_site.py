"""The documentation: it is built without warnings. In a browser pages fit, in light and dark, and say nothing on the
console."""

import re
import subprocess
import sys
import zlib

import pytest

from test_docs import DOCS

pytestmark = pytest.mark.slow
IN_BROWSER = pytest.mark.browser

PAGES = ("index", "reference/config", "own_data", "benchmarks", "reference/api/spiketime", "tutorials/index")
TORCH = "torch.Tensor py:class 1 tensors.html#$ -\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """All pages, without running notebooks, and with the names of other projects that a folder holds."""
    folder, out = tmp_path_factory.mktemp("inventories"), tmp_path_factory.mktemp("site")
    for name in ("python", "numpy", "torch", "matplotlib"):
        head = f"# Sphinx inventory version 2\n# Project: {name}\n# Version: 1\n# compressed using zlib.\n"
        content = zlib.compress(TORCH.encode() if name == "torch" else b"")
        (folder / f"{name}.inv").write_bytes(head.encode() + content)
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going"]
    command += ["-D", "nb_execution_mode=off", "-d", str(folder / "doctrees"), str(DOCS), str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIRSTSPIKE_INTERSPHINX", str(folder))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
    return out


def test_is_built_without_warnings(site):
    assert (site / "index.html").exists()


@pytest.fixture
def show(chromium, site):
    """Opens a page, and at the end sees that it said nothing on the console and asked for nothing but files."""
    opened, said, asked = [], [], []

    def show(name, **options):
        context = chromium.new_context(**({"viewport": {"width": 1200, "height": 900}} | options))
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        opened.append(context)
        page.goto((site / f"{name}.html").as_uri())
        return page

    yield show
    for context in opened:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


@IN_BROWSER
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("name", PAGES)
def test_page_fits(show, name, width, scheme):
    page = show(name, color_scheme=scheme, viewport={"width": width, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", back)[:3])) > 380) == (scheme == "light")
    cut = """() => [...document.querySelectorAll("article :is(pre, .table-wrapper, div.math)")].filter((box) =>
      box.scrollWidth > box.clientWidth + 1 && getComputedStyle(box).overflowX !== "auto").length"""
    assert page.evaluate(cut) == 0


@IN_BROWSER
def test_first_page_has_the_figure_and_five_parts(show):
    page = show("index")
    assert page.locator(".first-spike[data-ready]").count() == 1
    assert page.locator("img[src$='first_spike.svg']").count() == 0
    parts = page.locator(".sidebar-tree .caption").all_text_contents()
    assert parts == ["Tutorials", "How-to guides", "Explanation", "Reference", "For developers"]
    without = show("index", java_script_enabled=False)
    picture = without.locator("img[src$='first_spike.svg']")
    assert picture.is_visible()
    assert "T = 1.92" in picture.get_attribute("alt")


@IN_BROWSER
def test_figure_follows_the_switch_of_the_theme(show):
    page = show("index", color_scheme="light")
    colour = "() => getComputedStyle(document.querySelector('.first-spike .paper')).fill"
    light = page.evaluate(colour)
    page.evaluate("document.body.dataset.theme = 'dark'")
    dark = page.evaluate(colour)
    assert dark != light
    page.emulate_media(color_scheme="dark")
    page.evaluate("document.body.dataset.theme = 'light'")
    assert page.evaluate(colour) == light


@IN_BROWSER
def test_names_in_code_are_links(show):
    page = show("own_data")
    link = page.locator("article a[href='reference/api/data.html#firstspike.data.split']")
    assert link.first.text_content() == "fs.data.split"
    page = show("reference/api/spiketime")
    assert page.locator("a[href='https://docs.pytorch.org/docs/stable/tensors.html#torch.Tensor']").count() > 3


@IN_BROWSER
def test_code_can_be_copied(show):
    page = show("own_data")
    assert page.locator("button.copybtn").count() == page.locator("article div.highlight pre").count() > 3
