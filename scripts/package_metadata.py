"""Fill in the package's metadata at a build: a README that is read outside the repository, and the project's URLs.

PROJECT_REPOSITORY holds the repository's address; the release workflow sets it. Without it, a build names no URL, and a
link of the README becomes the name of its file in the source distribution.
"""

import os
import re
from pathlib import Path
from typing import Any, Final

from hatchling.metadata.plugin.interface import MetadataHookInterface

REPOSITORY: Final = "PROJECT_REPOSITORY"
FENCED: Final = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
LINK: Final = re.compile(r"(!?)\[([^\]]+)\]\((?!https?:|#)([^)\s#]+)(#[^)\s]*)?\)")
IMAGE_ALONE: Final = re.compile(r"^!\[[^\]]*\]\((?!https?:)[^)\s]+\)\n\n?", re.MULTILINE)


def readme_elsewhere(text: str, repository: str, tag: str) -> str:
    """Return a README for readers who do not have the repository's files beside it.

    With the https address of a repository, relative links lead to its files at a tag. With "" they name the file, and
    images that stand alone are left out. Code stays as it is.
    """

    def elsewhere(link: re.Match[str]) -> str:
        image, words, path, anchor = link[1], link[2], link[3], link[4] or ""
        if not repository:
            return f"{words} (`{path}`)"
        return f"{image}[{words}]({repository}/{'raw' if image else 'blob'}/{tag}/{path}{anchor})"

    parts = FENCED.split(text)
    for number in range(0, len(parts), 2):
        prose = parts[number] if repository else IMAGE_ALONE.sub("", parts[number])
        parts[number] = LINK.sub(elsewhere, prose)
    return "".join(parts)


def urls_of(repository: str, tag: str) -> dict[str, str]:
    """Return the project's URLs in a repository at an https address; none for ""."""
    if not repository:
        return {}
    return {
        "Repository": repository,
        "Documentation": f"{repository}/tree/{tag}/docs",
        "Changelog": f"{repository}/blob/{tag}/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }


class PackageMetadata(MetadataHookInterface):
    """The metadata hook that pyproject.toml names; hatchling calls it at every build."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the README and the URLs. Raises ValueError for a PROJECT_REPOSITORY that is no https address."""
        repository = os.environ.get(REPOSITORY, "").rstrip("/")  # noqa: TID251
        if repository and not repository.startswith("https://"):
            raise ValueError(f"{REPOSITORY} is {repository!r}: write the https address of the repository, or unset it")
        tag = f"v{metadata['version']}"
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": readme_elsewhere(text, repository, tag)}
        metadata["urls"] = urls_of(repository, tag)
