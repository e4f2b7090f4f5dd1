"""The picture of the rooms of the package, drawn from its imports.

python docs/site/architecture.py    # writes docs/images/architecture.svg
"""

import io
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import matplotlib

matplotlib.use("svg")

from import_graph import GRAPH, ROOT, room
from matplotlib import pyplot
from matplotlib.patches import FancyBboxPatch

# What each room does in a few words, and where it stands in the picture: column and row.
ROOMS = {
    "settings.schema": ("the blocks of a project file", 1.5, 0),
    "settings.words": ("fields in words", 0.9, 1),
    "data": ("datasets with groups", 0.5, 2),
    "kernels": ("the fused loss", 2.5, 2),
    "models": ("architectures", 1.5, 3),
    "methods": ("what a model is trained for", 2.5, 3),
    "settings": ("a checked project", 1.5, 4),
    "training": ("the loop", 2.5, 5),
    "predictions": ("one table per model", 0.5, 5),
    "analysis": ("statistics of tables", 0.5, 6),
    "study": ("arms, metrics, verdicts", 0.5, 7),
    "reporting": ("pages, tables, figures", 0.5, 8),
    "experiments": ("steps, reuse, MLflow", 1.5, 9),
    "tuning": ("a search by Optuna", 1.5, 10),
    "cli": ("commands", 1.5, 11),
}
_WIDTH, _HEIGHT, _ACROSS, _UP = 2.3, 0.62, 3.0, 1.15


def arrows() -> set[tuple[str, str]]:
    """Returns which room imports which, without what follows from the others."""
    direct: dict[str, set[str]] = {name: set() for name in ROOMS}
    for module, targets in GRAPH.items():
        own = room(module)
        if own is not None:
            direct[own] |= {other for t in targets if (other := room(t)) and other != own}

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        waiting = [start]
        while waiting:
            for target in direct[waiting.pop()] - found:
                found.add(target)
                waiting.append(target)
        return found

    return {
        (own, target)
        for own, targets in direct.items()
        for target in targets
        if not any(target in reached(other) for other in targets - {target})
    }


def drawn() -> str:
    """Returns the picture as SVG, equal for equal imports."""
    places = {name: (x * _ACROSS, y * _UP) for name, (_, x, y) in ROOMS.items()}
    with pyplot.rc_context({"svg.hashsalt": "rooms", "svg.fonttype": "none"}):
        figure, axes = pyplot.subplots(figsize=(8, 9.8))
        for name, (x, y) in places.items():
            box = FancyBboxPatch(
                (x, y), _WIDTH, _HEIGHT, boxstyle="round,pad=0.04", fc="#eef2f7", ec="#3b4a5a"
            )
            axes.add_patch(box)
            middle = x + _WIDTH / 2
            axes.text(middle, y + 0.4, name, ha="center", va="center", weight="bold", size=10)
            axes.text(middle, y + 0.14, ROOMS[name][0], ha="center", va="center", size=7.5)
        for own, target in sorted(arrows()):
            (x0, y0), (x1, y1) = places[own], places[target]
            axes.annotate(
                "",
                (x1 + _WIDTH / 2 + 0.25 * (x0 > x1) - 0.25 * (x0 < x1), y1 + _HEIGHT + 0.05),
                (x0 + _WIDTH / 2 + 0.25 * (x1 > x0) - 0.25 * (x1 < x0), y0 - 0.05),
                arrowprops={"arrowstyle": "->", "color": "#3b4a5a"},
            )
        axes.set_xlim(1.3, 10.0)
        axes.set_ylim(-0.2, 12 * _UP)
        axes.set_axis_off()
        text = io.StringIO()
        # The arrows as text, by which a test sees that the picture is that of the imports.
        about = {"Date": None, "Description": "; ".join(f"{a} -> {b}" for a, b in sorted(arrows()))}
        figure.savefig(text, format="svg", bbox_inches="tight", metadata=about)
        pyplot.close(figure)
    return text.getvalue()


if __name__ == "__main__":
    (ROOT / "docs/images/architecture.svg").write_text(drawn())
