"""What the site builder does beside copying pages: pages from the code, files of the repository."""

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]

import reference_pages  # noqa: E402
from mkdocs.structure.files import File, Files  # noqa: E402

# Files of the repository's top that are pages of the site, by their names there.
_PAGES = {
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that are no files of `docs/`."""
    made = {
        "reference/commands.md": reference_pages.commands(),
        "reference/configuration.md": reference_pages.configuration(),
    }
    for name, uri in _PAGES.items():
        made[uri] = (ROOT / name).read_text(encoding="utf-8")
    for uri, content in made.items():
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Has links to the repository's files lead to their pages, or to nowhere if there is none."""
    top = page.file.src_uri in _PAGES.values()
    up = "../" * page.file.src_uri.count("/")

    def link(found: re.Match[str]) -> str:
        text, target, anchor = found[1], found[2], found[3] or ""
        path = (ROOT if top else (ROOT / "docs" / page.file.src_uri).parent) / target
        inside = path.resolve()
        if not inside.is_relative_to(ROOT):
            return found[0]
        name = str(inside.relative_to(ROOT))
        if name in _PAGES:
            return f"[{text}]({up}{_PAGES[name]}{anchor})"
        if name == "README.md":
            return f"[{text}]({up}index.md)"
        if name.startswith("docs/"):
            return f"[{text}]({up}{name.removeprefix('docs/')}{anchor})"
        return f"`{name}`" if text == name else f"{text} (`{name}`)"

    return _LINK.sub(link, markdown)
