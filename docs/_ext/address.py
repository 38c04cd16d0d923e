"""Where the project is: ``[project.urls]`` in pyproject.toml, and whatever shows it.

``python docs/_ext/address.py`` writes it into README.md (badges), docs/index.md (BibTeX) and CITATION.cff. The site and
package indices read it by themselves.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]


def addresses() -> dict[str, str]:
    """By name, such as ``Source``; empty as long as there are none."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"].get("urls", {})


def theme_options(urls: Mapping[str, str]) -> dict[str, Any]:
    """Links to the repository on every page of the site."""
    if "Source" not in urls:
        return {}
    source = urls["Source"].rstrip("/")
    icon = {"name": "Source", "url": source, "html": "source", "class": ""}
    return {
        "source_repository": f"{source}/",
        "source_branch": "main",
        "source_directory": "docs/",
        "footer_icons": [icon],
    }


def readme(text: str, urls: Mapping[str, str]) -> str:
    """With badges, each of which leads to an address."""
    found = []
    if "Source" in urls:
        tests = f"{urls['Source'].rstrip('/')}/actions/workflows/tests.yml"
        found += [
            f"[![Tests]({tests}/badge.svg)]({tests})",
            "[![PyPI](https://img.shields.io/pypi/v/firstspike)](https://pypi.org/project/firstspike/)",
        ]
    if "Documentation" in urls:
        found.append(f"[![Documentation](https://img.shields.io/badge/documentation-blue)]({urls['Documentation']})")
    return re.sub("^.*<!-- badges -->$", " ".join([*found, "<!-- badges -->"]), text, flags=re.MULTILINE)


def index(text: str, urls: Mapping[str, str]) -> str:
    """With an entry for BibTeX of what CITATION.cff says."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    fields = {
        "author": f"{{{cited['authors'][0]['name']}}}",
        "title": cited["title"],
        "version": cited["version"],
        "year": str(cited["date-released"])[:4],
        "url": urls.get("Source"),
    }
    lines = [f"  {name} = {{{value}}},\n" for name, value in fields.items() if value]
    entry = f"```bibtex\n@software{{firstspike,\n{''.join(lines)}}}\n```"
    return re.sub("^```bibtex\n.*?^```$", lambda _: entry, text, flags=re.MULTILINE | re.DOTALL)


def citation(text: str, urls: Mapping[str, str]) -> str:
    """With the keys for addresses."""
    text = re.sub(r"^(repository-code|url): .*\n", "", text, flags=re.MULTILINE)
    keys = {"repository-code": urls.get("Source"), "url": urls.get("Documentation")}
    lines = "".join(f"{key}: {value}\n" for key, value in keys.items() if value)
    return re.sub(r"^license: .*\n", lambda found: found[0] + lines, text, flags=re.MULTILINE)


WRITES = {"README.md": readme, "docs/index.md": index, "CITATION.cff": citation}

if __name__ == "__main__":
    for name, write in WRITES.items():
        file = ROOT / name
        file.write_text(write(file.read_text(encoding="utf-8"), addresses()), encoding="utf-8")
