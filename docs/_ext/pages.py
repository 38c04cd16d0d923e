"""Pages that read on a code host as well as on the site.

A code host shows Markdown files as they are, so they contain nothing that only Sphinx understands:

* A comment ``<!-- only on the site`` ... ``-->`` holds what only the site shows, such as a table of contents.
* ``<!-- only on a code host -->`` ... ``<!-- end -->`` encloses what the site leaves out.
* Links lead to files of the repository. Those to a file that the site includes lead to its page.
* A name in code, such as ``fs.Trainer`` or ``firstspike.reports``, becomes a link to the API reference.
"""

import posixpath
import re
from collections.abc import Collection
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.util.matching import patfilter

PAGE_OF = {"CONTRIBUTING.md": "project/contributing.md", "CHANGELOG.md": "project/changelog.md"}
"""Files that a page of the site includes."""

_SITE = re.compile(r"^<!-- only on the site\n(.*?)^-->$", re.MULTILINE | re.DOTALL)
_HOST = re.compile(r"^<!-- only on a code host -->\n.*?^<!-- end -->$", re.MULTILINE | re.DOTALL)
_OUTSIDE = re.compile(r"\]\((\.\./[^)#\s]+)")
_CONTENTS = re.compile(r"^```\{toctree\}\n.*?^```$", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"(?:fs|firstspike)((?:\.[A-Za-z_]\w*)+)")


def for_site(text: str, page: str) -> str:
    """The source that Sphinx reads, of the source of a page that a code host shows."""
    folder = posixpath.dirname(posixpath.join("docs", page))

    def link(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, found[1]))
        target = path.removeprefix("docs/") if path.startswith("docs/") else PAGE_OF.get(path)
        return found[0] if target is None else f"](/{target}"

    return _OUTSIDE.sub(link, _HOST.sub("", _SITE.sub(r"\1", text)))


def without_empty(text: str, page: str, pages: Collection[str]) -> str:
    """Tables of contents without the patterns that match no page, which Sphinx would warn about."""
    folder = posixpath.dirname(page)

    def entries(found: re.Match[str]) -> str:
        lines = found[0].splitlines()
        keep = [x for x in lines if "*" not in x or patfilter(set(pages) - {page}, posixpath.join(folder, x))]
        return "\n".join(keep) if any(re.match(r"[\w*]", x) for x in keep) else ""

    return _CONTENTS.sub(entries, text)


def read(app: Any, page: str, source: list[str]) -> None:
    """Called with the source of every page."""
    text = for_site(source[0], page)
    source[0] = without_empty(text, page, app.env.found_docs)
    if source[0] != text:
        app.env.note_reread()  # a page may match next time


def link_names(app: Any, tree: nodes.document) -> None:
    """Names of the package in code become links, where the API reference has them."""
    for code in list(tree.findall(nodes.literal)):
        found = _NAME.fullmatch(code.astext().removesuffix("()"))
        parents = (code.parent, code.parent.parent)
        if found is None or any(isinstance(x, nodes.reference | nodes.title | pending_xref) for x in parents):
            continue
        target = "firstspike" + found[1]
        link = pending_xref("", refdomain="py", reftype="obj", reftarget=target, refdoc=app.env.docname, refwarn=False)
        code.replace_self(link)
        link += code


def setup(app: Any) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("source-read", read, priority=400)  # before what is generated, which may also be in a comment
    app.connect("doctree-read", link_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
