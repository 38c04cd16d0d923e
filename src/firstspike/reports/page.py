"""Templates, scripts and data become one file.

The plotting library and the data are compressed inside the page. The browser unpacks them. They come from installed
packages and from the run. The page makes no network requests. Its content security policy blocks them.
"""

import base64
import gzip
import hashlib
import io
import json
from collections.abc import Callable, Mapping
from importlib import metadata
from importlib.resources import files
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from firstspike._version import __version__
from firstspike.plots.look import DPI, style

SCRIPTS = {
    "run": ("elements", "table", "unpack", "charts", "confusion", "sample", "spikes", "plane", "run"),
    "sweep": ("elements", "table"),
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
    image = io.BytesIO()
    with style():
        figure.savefig(image, format="png", dpi=DPI)
    return f"data:image/png;base64,{_letters(image.getvalue())}"


def render(template: str, data: Mapping[str, Any] | None, **head: Any) -> str:
    """A page from the template ``run`` or ``sweep``.

    The ``data`` are for its scripts, plain values without NaN or infinity, or None for a page without charts. ``head``
    is for the template. All of it is escaped.
    """
    import jinja2
    import plotly
    from plotly.offline import get_plotlyjs

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("firstspike.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    library = "" if data is None else get_plotlyjs()
    names = ["page.css", *(f"{name}.js" for name in SCRIPTS[template])]
    own = files("firstspike.reports").joinpath("assets")
    styles, *scripts = (own.joinpath(name).read_text(encoding="utf-8") for name in names)
    script = "\n".join(scripts)
    # every copy of the plotting library has to include its licence
    licences = [file for file in metadata.files("plotly") or () if "dist-info" in str(file) and "LICENSE" in file.name]
    return environment.get_template(f"{template}.html.j2").render(
        **head,
        version=__version__,
        plotly_version=plotly.__version__,
        licence=licences[0].read_text() if licences else "",
        policy=_policy([script, library], [styles]),
        style=styles,
        script=script,
        library=library and _packed(library),
        data=_packed(json.dumps(data, separators=(",", ":"), allow_nan=False)),
    )


def _policy(scripts: list[str], styles: list[str]) -> str:
    """A content security policy: only these scripts run and only these styles apply, and no request is made.

    Styles without text are allowed as well. Scripts that run add their rules to such a one.
    """
    allowed = (
        " ".join(f"'sha256-{_letters(hashlib.sha256(text.encode()).digest())}'" for text in texts)
        for texts in (scripts, [*styles, ""])
    )
    return "default-src 'none'; script-src {}; style-src {}; img-src data: blob:".format(*allowed)


def _packed(text: str) -> str:
    """Compressed, as base64. The same text gives the same letters."""
    return _letters(gzip.compress(text.encode(), mtime=0))


def _letters(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
