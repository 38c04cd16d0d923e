"""The README as a package index shows it: links and pictures lead to the repository, as an index has no files of it."""

import re
import runpy
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface


def absolute(text: str, source: str, version: str) -> str:
    """The text with links to files of the repository at ``source``, as they are in the release ``version``."""
    at = f"{source.rstrip('/')}/{{}}/v{version}/".format
    text = re.sub(r"!\[([^\]]*)\]\((?!\w+:)", lambda found: f"![{found[1]}]({at('raw')}", text)
    text = re.sub(r'srcset="(?!\w+:)', f'srcset="{at("raw")}', text)
    return re.sub(
        r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!\w+:|#|!)", lambda found: f"[{found[1]}]({at('blob')}", text
    )


class CustomMetadataHook(MetadataHookInterface):
    """Sets the README; without the address of the repository, see RELEASING.md, its links stay as they are."""

    def update(self, metadata: dict[str, object]) -> None:
        """Called by hatchling with the table ``[project]``."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        urls = metadata.get("urls", {})
        source = urls.get("Source") if isinstance(urls, dict) else None
        version = runpy.run_path(str(Path(self.root, "src/firstspike/_version.py")))["__version__"]
        text = absolute(text, source, version) if source else text
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
