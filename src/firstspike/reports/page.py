"""Templates, scripts and data become one file.

The plotting library and the data are compressed inside of the page; the browser unpacks them. They come from installed
packages and from the run, never from the network, which the page forbids itself.
"""

import base64
import gzip
import json
from collections.abc import Mapping
from importlib import metadata
from importlib.resources import files
from typing import Any

from firstspike._version import __version__

MISSING = 'a report needs Jinja2 and Plotly: pip install "firstspike[report]"'
SCRIPTS = {
    "run": ("unpack", "charts", "table", "curves", "history", "confusion", "sample", "spikes", "plane", "run"),
    "sweep": ("unpack", "charts", "table", "sweep"),
}


def check_report() -> None:
    """Whether reports can be made here.

    Raises:
        ImportError: the extra ``report`` is not installed.
    """
    try:
        import jinja2  # noqa: F401
        import plotly  # noqa: F401
    except ImportError:
        raise ImportError(MISSING) from None


def render(template: str, data: Mapping[str, Any], **head: Any) -> str:
    """A page.

    Args:
        template: ``run`` or ``sweep``, which templates and scripts there are for.
        data: for the scripts: plain values, without NaN or infinity.
        head: for the template. All of it is escaped.

    Raises:
        ImportError: the extra ``report`` is not installed.
    """
    check_report()
    import jinja2
    import plotly
    from plotly.offline import get_plotlyjs

    own = files("firstspike.reports")
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("firstspike.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scripts = [own.joinpath("assets", f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS[template]]
    return templates.get_template(f"{template}.html.j2").render(
        **head,
        version=__version__,
        plotly_version=plotly.__version__,
        licence=_licence(),
        style=own.joinpath("assets", "page.css").read_text(encoding="utf-8"),
        script="\n".join(scripts),
        library=_packed(get_plotlyjs()),
        data=_packed(json.dumps(data, separators=(",", ":"), allow_nan=False)),
    )


def _licence() -> str:
    """The licence that the plotting library comes with, which asks to go with every copy."""
    found = [file for file in metadata.files("plotly") or () if "dist-info" in str(file) and "LICENSE" in file.name]
    return found[0].read_text() if found else ""


def _packed(text: str) -> str:
    """Compressed, in letters that mean nothing in HTML; the same text gives the same letters."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode("ascii")
