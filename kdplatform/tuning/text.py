"""The text that `tune` prints at its end."""

from collections.abc import Sequence
from dataclasses import replace

from kdplatform.reporting.tables import EMPTY, text_table
from kdplatform.roles import Role
from kdplatform.settings.schema import ProjectConfig
from kdplatform.study.metrics import GROUP_REFERENCES
from kdplatform.text import visible
from kdplatform.tuning.confirmation import Confirmed, verdict
from kdplatform.tuning.dimensions import dimensions, searched_methods
from kdplatform.tuning.measures import Measure
from kdplatform.tuning.results import Found
from kdplatform.tuning.selection import Choice, least_infeasible
from kdplatform.tuning.space import Point, first_points
from kdplatform.tuning.trials import Books, failures


def search_text(found: Found, books: Books, choices: Sequence[Choice]) -> str:
    """Returns the search's table: references and chosen points on validation data."""
    measure, references = found.measure, found.references
    rows = [
        ["Teacher", "", *_cells(measure, *references.teacher)],
        ["NDS", "", *_cells(measure, *references.nds)],
    ]
    rows += [
        [c.point.title(found.config), ", ".join(c.labels), *_cells(measure, *c.found)]
        for c in choices
    ]
    seeds = found.config.tuning.seeds_per_trial
    lines = [
        text_table(["search", "", "accuracy", measure.label], rows),
        f"validation data, mean of {seeds} seeds; the best of {books.completed} points looks better"
        " than it is",
        _books_line(books),
    ]
    failed = failures(found.study.get_trials(deepcopy=False))
    lines += [f"trial {number} failed: {why}" for number, why in failed]
    if note := unsearched_note(found.config):
        lines.append(note)
    if found.trials:
        accuracy, unfairness = _cells(measure, *found.reference_point)
        lines.append(
            f"hypervolume {found.history()[-1]:.6g} (of fractions), reference point accuracy "
            f"{accuracy}, {measure.label} {unfairness}"
        )
    return "\n".join(lines)


def unsearched_note(config: ProjectConfig) -> str:
    """Warns if there is only one point, or if the first points leave no trial for the sampler."""
    tuning = config.tuning
    methods = searched_methods(config)
    own = dimensions(config, methods[0])
    training = (limits for limits in (tuning.learning_rate, tuning.epochs) if limits is not None)
    ranges = [*((dimension.low, dimension.high) for dimension in own), *training]
    if len(methods) == 1 and all(low == high for low, high in ranges):
        lowest = tuple((dimension.field, dimension.low) for dimension in own)
        point = replace(Point.of(config, methods[0]), fields=lowest)
        sources = " or ".join(dimension.source for dimension in own)
        return (
            f"nothing is searched: the space is one point, {point.title(config)}; allowed: "
            f"a wider {sources or 'range'}"
        )
    grid = len(first_points(config)) if tuning.grid else 0
    if grid < tuning.trials:
        return ""
    others = " and every other method at its defaults" if len(methods) > 1 else ""
    return (
        f"nothing is searched: the project's own point and its temperatures{others} come first, "
        f"{grid} points for {tuning.trials} trials; allowed: more trials, or tuning.grid=false"
    )


def methods_notes(config: ProjectConfig) -> list[str]:
    """Names what is not searched of several methods, and what the sampler does not model."""
    methods, sampler, notes = searched_methods(config), config.tuning.sampler, []
    if len(methods) < 2:
        return []
    notes += [
        f"no field of {name} is searched: it is one point"
        for name in methods
        if not dimensions(config, name)
    ]
    if sampler in ("gp", "nsgaii"):
        notes.append(
            f"sampler={sampler!r} draws the fields of each of several methods at random; tpe does "
            "not"
        )
    return notes


def _books_line(books: Books) -> str:
    others = {
        "lost or interrupted and tried again": books.retried,
        "running": books.running,
        "waiting": books.waiting,
        "not needed": books.surplus,
    }
    parts = [f"{count} {word}" for word, count in others.items() if count]
    return ", ".join([f"trials: {books.completed} completed", f"{books.failed} failed", *parts])


def _cells(measure: Measure, accuracy: float, unfairness: float) -> list[str]:
    return [f"{100 * accuracy:.2f}", measure.shown(unfairness)]


def confirmation_text(measure: Measure, arms: Sequence[Confirmed], seeds: Sequence[int]) -> str:
    """Returns the table of the chosen points on fresh seeds and test data."""
    rows = []
    counts = {role: f"n_{name}" for role, name in GROUP_REFERENCES.items()}
    counts = {role: name for role, name in counts.items() if any(role in a.groups for a in arms)}
    for arm in arms:
        rows.append(
            [
                arm.title,
                ", ".join(arm.choice.labels) if arm.choice else "",
                _interval(arm, "accuracy", 100.0),
                _interval(arm, "unfairness", 100.0 if measure.is_share else 1.0),
                measure.shown(arm.choice.found.unfairness) if arm.choice else EMPTY,
                measure.shown(arm.again["unfairness"].mean(skipna=False)),
                *(_count(arm, role) for role in counts),
            ]
        )
    header = ["confirmed", "", "accuracy", measure.label, "as searched", "searched again"]
    header += counts.values()
    lines = [
        text_table(header, rows),
        f"test data, seeds {seeds[0]}-{seeds[-1]} that the search has not seen: mean [95 % interval"
        " over seeds]",
        f"as searched: {measure.label} on validation data, the search's seeds; searched again: the "
        "same data, the fresh seeds",
    ]
    if counts:
        lines.append(_counts_line(measure, arms))
    return "\n".join([*lines, "", *_verdicts(measure, arms)])


def _count(arm: Confirmed, role: Role) -> str:
    if role not in arm.groups:
        return EMPTY
    counts = arm.groups[role].counts
    return f"{counts.significant} of {counts.tested}"


def _counts_line(measure: Measure, arms: Sequence[Confirmed]) -> str:
    found = [comparison for arm in arms for comparison in arm.groups.values()]
    chance = max(comparison.counts.expected_by_chance for comparison in found)
    tests = " or ".join(dict.fromkeys(comparison.shifts.test for comparison in found))
    groups = f"groups of {visible(measure.attribute)}"
    return (
        f"n_tg, n_sg: {groups} whose accuracy differs from Teacher and NDS at p < .05 ({tests}); "
        f"chance alone gives about {chance:.2g}"
    )


def _interval(arm: Confirmed, name: str, scale: float) -> str:
    mean, low, high = (scale * value for value in arm.estimate(name))
    if mean != mean:
        return EMPTY
    if low != low:
        return f"{mean:.2f}"
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def _verdicts(measure: Measure, arms: Sequence[Confirmed]) -> list[str]:
    scale, unit = (100.0, " points") if measure.is_share else (1.0, "")
    lines = []
    for arm in arms:
        if not arm.differences:
            continue
        parts = []
        for name, label, factor, of in (
            ("accuracy", "accuracy", 100.0, " points"),
            ("unfairness", measure.label, scale, unit),
        ):
            mean, low, high = (factor * value for value in arm.differences[name].interval)
            shown = f"{label} {mean:+.2f}{of}"
            if low == low:
                shown += f" [{low:.2f}, {high:.2f}], p {arm.p_holm[name]:.2g}"
            elif len(arm.scores) > 1:
                shown += " for every seed, which leaves no interval"
            parts.append(f"{shown}: {verdict(arm, name)}")
        lines.append(f"{arm.title} against the baseline: {'; '.join(parts)}")
    if not lines:
        return ["nothing to compare with the baseline"]
    return [*lines, "(paired t tests over the seeds, Holm's correction over the points)"]


def infeasible_line(found: Found) -> str:
    """Names the trial nearest to the constraints, if none satisfies them."""
    trial = least_infeasible(found.trials)
    violated = ", ".join(
        f"{name} by {value:.4g}" for name, value in trial.constraints.items() if value > 0
    )
    return (
        f"none of {len(found.trials)} trials satisfies the constraints; the nearest is trial "
        f"{trial.number}, {trial.point.title(found.config)}, which violates {violated}"
    )
