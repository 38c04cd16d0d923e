"""Templates, scripts and data become one file.

The plotting library and the data are compressed inside the page; the browser unpacks them. They come from installed
packages and from the run. The page makes no network requests; its content security policy blocks them.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from importlib.resources import files
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from firstspike._version import __version__
from firstspike.plots.save import as_png
from firstspike.text import installed_with

MISSING = f"a report needs Jinja2 and Plotly: {installed_with('report')}"
SCRIPTS = {
    "run": ("unpack", "charts", "table", "confusion", "sample", "spikes", "plane", "run"),
    "sweep": ("charts", "table", "sweep"),
}


class Picture(NamedTuple):
    """A figure in a page: its heading, its text, the image, and its seed if it is of one."""

    title: str
    text: str
    image: str
    member: int | None = None

    @classmethod
    def of(cls, title: str, draw: Callable[..., Figure], figure: Figure, member: int | None = None) -> "Picture":
        """A figure by ``draw``, whose docstring becomes its text."""
        return cls(title, (draw.__doc__ or "").splitlines()[0], as_source(figure), member)


def as_source(figure: Figure) -> str:
    """A figure as the source of an image."""
    return f"data:image/png;base64,{base64.b64encode(as_png(figure)).decode('ascii')}"


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


def render(template: str, data: Mapping[str, Any] | None, **head: Any) -> str:
    """A page.

    Args:
        template: ``run`` or ``sweep``.
        data: for the scripts: plain values, without NaN or infinity; None for a page without charts.
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
    library = "" if data is None else get_plotlyjs()
    names = ["page.css", *(f"{name}.js" for name in SCRIPTS[template])]
    style, *scripts = (own.joinpath("assets", name).read_text(encoding="utf-8") for name in names)
    script = "\n".join(scripts)
    return templates.get_template(f"{template}.html.j2").render(
        **head,
        version=__version__,
        plotly_version=plotly.__version__,
        licence=_licence(),
        policy=_policy([script, library], [style]),
        style=style,
        script=script,
        library=library and _packed(library),
        data=_packed(json.dumps(data, separators=(",", ":"), allow_nan=False)),
    )


def _policy(scripts: Sequence[str], styles: Sequence[str]) -> str:
    """A content security policy: only these scripts run and only these styles apply, and no request is made.

    Styles without text are allowed as well; scripts that run add their rules to such a one.
    """
    allowed = []
    for texts in (scripts, (*styles, "")):
        digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii") for text in texts]
        allowed.append(" ".join(f"'sha256-{digest}'" for digest in digests))
    return f"default-src 'none'; script-src {allowed[0]}; style-src {allowed[1]}; img-src data: blob:"


def _licence() -> str:
    """The licence of the plotting library, which every copy has to include."""
    found = [file for file in metadata.files("plotly") or () if "dist-info" in str(file) and "LICENSE" in file.name]
    return found[0].read_text() if found else ""


def _packed(text: str) -> str:
    """Compressed, as base64; the same text gives the same letters."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode("ascii")
