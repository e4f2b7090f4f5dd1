"""The card of one trained model as the description of a version in a model registry."""

from collections.abc import Mapping, Sequence

from kdplatform.reporting.cards.markdown import escaped, points, table
from kdplatform.study.metrics import ACCURACY, WORST_CLASS_ACCURACY

# Number of characters of a description that MLflow's database keeps.
LONGEST = 5000
_OF_GROUPS = ("dpd", "eod", "worst_group_accuracy")
_COUNTS = ("classwise/n_tc", "classwise/n_sc", "groupwise/n_tg", "groupwise/n_sg")


def version_card(run_id: str, body: Sequence[str]) -> str:
    """Returns a card's Markdown, cut at a line end to the length that a registry keeps."""
    last = f"The whole card: artifact `card/README.md` of run {run_id}."
    text = "\n".join(body)
    if len(text) <= LONGEST:
        return text
    kept, room = [], LONGEST - len(last) - 2
    for line in body:
        room -= len(line) + 1
        if room < 0:
            break
        kept.append(line)
    return "\n".join([*kept, "", last])


def run_card(
    title: str,
    tags: Mapping[str, str],
    params: Mapping[str, str],
    metrics: Mapping[str, float],
) -> list[str]:
    """Returns the lines of a card of one run, from the run's own log."""
    shown = [
        (name, f"{value:.4g}")
        for name, value in sorted(metrics.items())
        if name in (ACCURACY, WORST_CLASS_ACCURACY, *_COUNTS)
        or (name.startswith("fairness/") and name.rpartition("/")[2] in _OF_GROUPS)
    ]
    training = [
        f"{name}: {value}"
        for name, value in sorted(params.items())
        if name in ("seed", "dataset.name") or name.endswith((".model", ".epochs", ".method"))
    ]
    return [
        f"# {escaped(title)}",
        "",
        f"Role {escaped(tags.get('kd.role', 'unknown'))} of project "
        f"{escaped(tags.get('kd.project', 'unknown'))}, one model.",
        "",
        "## Measured on the test split",
        "",
        *table(("metric", "value"), shown),
        "## How it came to be",
        "",
        *points(training, "Not recorded."),
    ]
