"""Small repairs between docstrings that are written to be read in a terminal, and Sphinx."""

import re
from typing import Any

from docutils.nodes import Element, Node
from pydantic import BaseModel
from sphinx.util.nodes import make_refnode


def shorten_signature(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """``Float[Tensor, 'batch n']`` and ``torch.dtype`` in place of full or bare names, which keep their links.

    Bounds of numbers and the default ``lambda`` of a function are left out.
    """
    if isinstance(obj, type) and issubclass(obj, BaseModel):
        return "", None  # the keys of a config have a page of their own
    return _plain(signature), _plain(returns)


def _plain(text: str | None) -> str | None:
    if text is None:
        return None
    text = re.sub(r"<factory>|<function [\w.]*<lambda>>", "...", text)  # Sphinx cannot read these
    text = re.sub(r"~?(?:typing\.)?Annotated\[((?:[^\[\],]|\[[^\[\]]*\])*)(?:, [^\[\]]*?\([^()]*\))*\]", r"\1", text)
    text = re.sub(r"~torch\.(?=[a-z]+\b(?!\.))", "torch.", text)
    return re.sub(r"(?<![\w.~])~?(?!firstspike\.)((?:[a-z_]\w*\.)+)(?=[A-Z])", _public, text)


def _public(found: re.Match[str]) -> str:
    """The module in which others document a name, which is not shown; nothing for those without a page."""
    module = re.sub(r"^(torch\.nn|torch\.optim(?!\.lr_scheduler)|matplotlib\.\w+|numpy)\..*", r"\1.", found[1])
    return f"~{module}" if module.startswith(("torch.", "numpy.", "matplotlib.")) else ""


def skip_fields(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Fields of named tuples, whose docstrings say no more than their number."""
    text = getattr(obj, "__doc__", None) or ""
    return True if re.match(r"Alias for field number \d+", text) else None


def mark_code(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """An indented block after a paragraph is code, as a reader of the docstring sees it."""
    for index in range(len(lines) - 1, 1, -1):
        before = lines[index - 2]
        indented = lines[index].startswith("    ") and not lines[index - 1]
        if indented and before and not before.startswith(" ") and not before.endswith("::"):
            lines[index:index] = ["::", ""]


def find_public(app: Any, env: Any, node: Element, text: Node) -> Node | None:
    """A link to ``firstspike.layers.delay.Delay`` leads to the public ``firstspike.layers.Delay``."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not target.startswith("firstspike."):
        return None
    last = target.rpartition(".")[2]
    domain = env.get_domain("py")
    names = [name for name, x in domain.objects.items() if name.rpartition(".")[2] == last and not x.aliased]
    if len(names) != 1:
        return None
    where = domain.objects[names[0]]
    return make_refnode(app.builder, node["refdoc"], where.docname, where.node_id, text, names[0])


def setup(app: Any) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("autodoc-process-docstring", mark_code, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("missing-reference", find_public)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
