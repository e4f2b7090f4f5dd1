"""Files of HateXplain's published schema, with harmless texts."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdplatform.data._hatexplain_files import DIVISIONS, POSTS


def post(
    name: str, labels: Sequence[str], targets: Sequence[list[str]], tokens: Sequence[str]
) -> dict[str, Any]:
    """Returns a post with one annotator per label."""
    annotators = [
        {"label": label, "annotator_id": number, "target": own}
        for number, (label, own) in enumerate(zip(labels, targets, strict=True))
    ]
    return {"post_id": name, "annotators": annotators, "rationales": [], "post_tokens": tokens}


def write_posts(
    folder: Path, posts: Mapping[str, Any], divisions: Mapping[str, Sequence[str]]
) -> Path:
    """Writes posts and their splits; returns the folder."""
    (folder / POSTS).write_text(json.dumps(posts))
    (folder / DIVISIONS).write_text(json.dumps(divisions))
    return folder
