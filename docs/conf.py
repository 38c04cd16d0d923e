"""Sphinx: Markdown pages, notebooks with their stored outputs, and the API from the docstrings."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from sphinx.application import Sphinx

import firstspike

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

from address import addresses, theme_options  # noqa: E402

project = "firstspike"
author = "The firstspike developers"
project_copyright = author
version = release = firstspike.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx.ext.mathjax",
    "docstrings",
    "generated",
    "mathml",
    "pages",
]
exclude_patterns = ["_build", "_ext"]

# Links to the references of other projects need their inventories: FIRSTSPIKE_INTERSPHINX=1 fetches them, and a folder
# there may contain torch.inv and so on instead. Without it a build asks nothing of the network.
if folder := os.environ.get("FIRSTSPIKE_INTERSPHINX"):
    extensions.append("sphinx.ext.intersphinx")
    references = {
        "python": "https://docs.python.org/3",
        "numpy": "https://numpy.org/doc/stable",
        "torch": "https://docs.pytorch.org/docs/stable",
        "matplotlib": "https://matplotlib.org/stable",
    }
    stored = {name: Path(folder).resolve() / f"{name}.inv" for name in references}
    intersphinx_mapping = {
        name: (url, str(stored[name]) if stored[name].exists() else None) for name, url in references.items()
    }
    intersphinx_timeout = 20

# `sphinx-build -b linkcheck docs docs/_build/linkcheck`, which needs the network, too
linkcheck_timeout = 20
linkcheck_retries = 2
linkcheck_allowed_redirects = {r"https://doi\.org/.*": r"https?://.*"}  # that is what a DOI is for
linkcheck_report_timeouts_as_broken = False
linkcheck_anchors_ignore_for_url = [r"https://github\.com/.*"]  # made by scripts

html_theme = "furo"
html_theme_options = theme_options(addresses())
html_baseurl = addresses().get("Documentation", "")
pygments_dark_style = "github-dark"  # the theme's own underlines modules
html_title = f"firstspike {release}"
html_static_path = ["_static"]
html_css_files = ["firstspike.css"]

# Formulas are drawn by MathJax from the site itself or, without its package, by browsers alone; never from elsewhere.
mathjax = find_spec("mathjax")
html_math_renderer = "mathml"
if mathjax and mathjax.origin:
    html_math_renderer, mathjax_path = "mathjax", "tex-svg.js"
    html_static_path.append(str(Path(mathjax.origin).parent / "static" / "mathjax" / "es5" / mathjax_path))

myst_enable_extensions = ["alert", "amsmath", "dollarmath"]
myst_heading_anchors = 3

nb_execution_mode = "off"  # the notebooks are stored with outputs, and the tests run them
nb_merge_streams = True

default_role = "code"  # docstrings write `name` and ``name`` alike
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
maximum_signature_line_length = 120


def figure(app: Sphinx, page: str, *_: object) -> None:
    """The figure of the first page, which takes the place of its picture where scripts run."""
    if page == "index":
        for name in ("drawing.css", "figure.css"):
            app.add_css_file(f"first_spike/{name}")
        for name in ("solve.js", "figure.js"):
            app.add_js_file(f"first_spike/{name}", loading_method="defer")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("html-page-context", figure)
