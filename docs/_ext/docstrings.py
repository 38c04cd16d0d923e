"""Small repairs between docstrings that are written to be read in a terminal, and Sphinx."""

import re
from typing import Any

from docutils.nodes import Element, Node
from pydantic import BaseModel
from sphinx.util.nodes import make_refnode


def shorten_signature(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """``Float[Tensor, 'batch n']`` and ``torch.dtype`` in place of full or bare names; own names keep their links."""
    if isinstance(obj, type) and issubclass(obj, BaseModel):
        return "", None  # the keys of a config have a page of their own
    return _plain(signature), _plain(returns)


def _plain(text: str | None) -> str | None:
    if text is None:
        return None
    text = text.replace("<factory>", "...")  # of a dataclass; Sphinx cannot read it
    text = re.sub(r"~torch\.(?=[a-z]+\b(?!\.))", "torch.", text)
    return re.sub(r"(?<![\w.~])~?(?!firstspike\.)(?:[a-z_]\w*\.)+(?=[A-Z])", "", text)


def skip_fields(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Fields of named tuples, whose docstrings say no more than their number."""
    text = getattr(obj, "__doc__", None) or ""
    return True if re.match(r"Alias for field number \d+", text) else None


def find_public(app: Any, env: Any, node: Element, text: Node) -> Node | None:
    """A link to ``firstspike.layers.lif.LIFLinear`` leads to the public ``firstspike.layers.LIFLinear``."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not target.startswith("firstspike."):
        return None
    last = target.rpartition(".")[2]
    domain = env.get_domain("py")
    names = [name for name in domain.objects if name.rpartition(".")[2] == last]
    if len(names) != 1:
        return None
    where = domain.objects[names[0]]
    return make_refnode(app.builder, node["refdoc"], where.docname, where.node_id, text, names[0])


def setup(app: Any) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("missing-reference", find_public)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
