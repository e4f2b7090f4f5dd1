"""The paper's claims, each judged for one study (Mohammadshahi and Ioannou, TMLR 2025).

This file fixes what is measured, with which test and at which temperatures, before any study is
seen. Nothing is chosen after the numbers are known. "Up to T = 10" means the temperatures of the
paper's main tables; "very high" means its 20, 30 and 40.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from kdplatform.analysis.effects import trend_over_temperature
from kdplatform.analysis.intervals import (
    LEVEL,
    UNKNOWN,
    Interval,
    change_over_temperature,
    mean_of_seeds_and_examples,
    mean_over_seeds,
)
from kdplatform.analysis.tables import attribute_name, stack_tables
from kdplatform.predictions import FloatArray
from kdplatform.roles import Role
from kdplatform.study import verdicts
from kdplatform.study.classes import ClassWise
from kdplatform.study.fairness import Change, GroupFairness
from kdplatform.study.metrics import (
    INDIVIDUAL,
    INDIVIDUAL_CALIBRATED,
    INDIVIDUAL_LABELS,
    fairness_metric,
)
from kdplatform.study.study import NDS, TEACHER, Arm, Grid, Study, complete_grid, temperature_of
from kdplatform.study.verdicts import Verdict

HIGHEST_USUAL = 10.0
LOWEST_VERY_HIGH = 20.0
_NAMES = {"eod": "EOD", "dpd": "DPD"}


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, judged on one study.

    Attributes:
        claim: the claim in words.
        quantity: what the estimate is.
        test: how it is judged.
        scale: 100 for what is shown in percentage points, 1 for other numbers.
        p_value: of the test; NaN if the claim is judged by an interval alone.
        sample: the seeds, temperatures and examples that were used.
        remark: a caution for the reader.
    """

    claim: str
    verdict: Verdict
    quantity: str
    interval: Interval
    scale: float
    test: str
    p_value: float
    sample: str
    remark: str = ""


def judge(study: Study, classes: ClassWise, fairness: Mapping[str, GroupFairness]) -> list[Claim]:
    """Judges all claims on one study, for each of its methods that has a temperature."""
    methods = dict.fromkeys(arm.method for arm in study.distilled if arm.temperature is not None)
    found = []
    for method in methods:
        claims = _Judge(study, classes, fairness, method).claims()
        if study.has_several_methods:
            claims = [replace(claim, claim=f"{method}: {claim.claim}") for claim in claims]
        found += claims
    return found


class _Judge:
    """Judges all claims on one method of a study."""

    def __init__(
        self,
        study: Study,
        classes: ClassWise,
        fairness: Mapping[str, GroupFairness],
        method: str | None,
    ) -> None:
        self.study = study
        self.classes = classes
        self.fairness = fairness
        own = [arm for arm in study.distilled if arm.method == method and len(arm.settings) == 1]
        self.arm_at = {arm.temperature: arm for arm in own if arm.temperature is not None}
        names = [self._name(arm) for arm in self.arm_at.values()]
        self.runs = study.metrics[study.metrics["arm"].isin(names)]
        self.usual = [arm for t, arm in self.arm_at.items() if t <= HIGHEST_USUAL]
        self.very_high = [arm for t, arm in self.arm_at.items() if t >= LOWEST_VERY_HIGH]

    def claims(self) -> list[Claim]:
        """All claims for which this study has data."""
        return [
            *self._accuracy(),
            *self._class_trends(),
            *self._beyond_chance(),
            *self._group_fairness(),
            *self._individual_fairness(),
        ]

    # ---- the arms and seeds a claim rests on

    def _grid(self, column: str | None = None, *, with_nds: bool = False) -> Grid:
        """The largest gapless part of the temperatures up to 10.

        Args:
            column: of `Study.metrics`, which must be known for a run to be used.
            with_nds: whether the NDS of the same seed must exist.
        """
        cells: dict[float, list[int]] = {}
        for arm in self.usual:
            own = self.runs[self.runs["arm"] == self.study.names[arm]]
            if column is not None:
                own = own[own[column].notna()] if column in own else own.iloc[:0]
            seeds = [int(seed) for seed in own["seed"]]
            if with_nds:
                seeds = [s for s in seeds if self.study.reference(Role.STUDENT, s) is not None]
            cells[temperature_of(arm)] = seeds
        return complete_grid(cells)

    def _name(self, arm: Arm) -> str:
        return self.study.names[arm]

    def _sample(self, grid: Grid) -> str:
        return (
            f"{counted(len(grid.seeds), 'seed')} × {counted(len(grid.temperatures), 'temperature')}"
            f" ({_range(grid.temperatures)}), {len(self.study.any_table)} examples"
        )

    # ---- trends

    def _trend(
        self,
        claim: str,
        sign: int,
        column: str,
        quantity: str,
        scale: float,
        remark: str = "",
        chance: Callable[[float], float] = lambda temperature: 0.0,
        width: float = np.inf,
    ) -> Claim:
        """A rise (sign 1) or fall (-1) over the temperatures up to 10.

        Args:
            chance: the value's chance level at a temperature. The verdict must hold both for the
                values themselves and for the values minus their chance level.
            width: largest minus smallest possible value.
        """
        grid = self._grid(column)
        words = f"change of {quantity} over {_range(grid.temperatures)}"
        test = "Page's trend test, seeds as blocks; t-interval of the seeds' straight lines"
        verdict, change, p_value = Verdict.UNDECIDED, UNKNOWN, np.nan
        if len(grid.seeds) < 2 or len(grid.temperatures) < 3:
            remark = "a trend needs 2 seeds with the same 3 temperatures"
        else:
            levels = {temperature: chance(temperature) for temperature in grid.temperatures}
            plain = dict.fromkeys(levels, 0.0)
            verdict, change, p_value = self._trend_of(sign, column, grid, plain, width)
            beyond, *_ = self._trend_of(sign, column, grid, levels)
            if beyond is not verdict:
                verdict = Verdict.UNDECIDED
                remark = _joined(remark, "not beyond the trend of its chance level")
        sample = self._sample(grid)
        return Claim(claim, verdict, words, change, scale, test, p_value, sample, remark)

    def _trend_of(
        self,
        sign: int,
        column: str,
        grid: Grid,
        levels: Mapping[float, float],
        width: float = np.inf,
    ) -> tuple[Verdict, Interval, float]:
        """Judges the trend of the values minus the level of each temperature."""
        excess = self.runs[column] - self.runs["temperature"].map(levels)
        runs = self.runs.assign(excess=excess)
        used = runs["seed"].isin(grid.seeds) & runs["temperature"].isin(grid.temperatures)
        trend = trend_over_temperature(runs[used], "excess")
        values, temperatures = _values(runs, grid, "excess"), np.array(grid.temperatures)
        change = change_over_temperature(values, temperatures, width)
        return verdicts.by_trend(sign, trend, change), change, trend.p_value

    def _class_trends(self) -> Iterator[Claim]:
        for role, name, sign, words in (
            (Role.TEACHER, "tc", -1, "#TC falls as T rises: DS comes closer to the teacher"),
            (Role.STUDENT, "sc", 1, "#SC rises as T rises: DS moves away from the NDS"),
        ):
            column = f"classwise/shift_{name}"
            if column not in self.runs:
                continue
            yield self._trend(
                words,
                sign,
                column,
                f"the mean class shift against {role.label}",
                100,
                self._counts_in_words(role),
            )

    def _counts_in_words(self, role: Role) -> str:
        """The counts themselves. There is one number per temperature, so no test over seeds."""
        shown = [
            (arm, self.classes.tests[arm, role])
            for arm in self.usual
            if (arm, role) in self.classes.tests
        ]
        if not shown:
            return ""
        (low, first), (high, last) = shown[0], shown[-1]
        return (
            f"counts: {first.counts.significant} at T={low.temperature:g}, "
            f"{last.counts.significant} at T={high.temperature:g}; "
            f"{first.counts.expected_by_chance:.2g} by chance"
        )

    # ---- accuracy and classes

    def _accuracy(self) -> Iterator[Claim]:
        grid = self._grid(with_nds=True)
        if not grid.seeds:
            return
        study = self.study
        right_nds = stack_tables([study.any_table, *study.tables(NDS, grid.seeds)]).correct[1:]
        gains = np.zeros(right_nds.shape)
        for temperature in grid.temperatures:
            tables = study.tables(self.arm_at[temperature], grid.seeds)
            right = stack_tables([study.any_table, *tables]).correct[1:]
            gains += right.astype(float) - right_nds
        gain = mean_of_seeds_and_examples(gains / len(grid.temperatures)).within(-1, 1)
        yield Claim(
            "DS is more accurate than the NDS",
            verdicts.by_interval(1, gain),
            f"mean accuracy of DS over {_range(grid.temperatures)}, minus NDS",
            gain,
            100,
            "95% interval over seeds and examples",
            np.nan,
            self._sample(grid),
            _one_seed(grid.seeds),
        )

    def _beyond_chance(self) -> Iterator[Claim]:
        """Where the paper finds most: #TC at the lowest temperature above 1, #SC at the highest."""
        above_one = [arm for arm in self.usual if temperature_of(arm) > 1]
        for role, name, candidates in (
            (Role.TEACHER, "#TC", above_one[:1]),
            (Role.STUDENT, "#SC", above_one[-1:]),
        ):
            for arm in candidates:
                yield self._beyond_chance_at(arm, role, name)

    def _beyond_chance_at(self, arm: Arm, role: Role, name: str) -> Claim:
        claim = f"Classes of {self._name(arm)} differ from {role.label} beyond chance ({name})"
        test = "permutation of seeds (global p); contradicted: every class within ±2% of accuracy"
        quantity = "largest class shift, % of overall accuracy"
        found = self.classes.tests.get((arm, role))
        seeds = f"{len(self.study.seeds(arm))} and {len(self.study.seeds(Arm(role)))} seeds"
        sample = f"{seeds}, {len(self.study.any_table)} examples"
        verdict, shift, p_value = Verdict.UNDECIDED, UNKNOWN, np.nan
        if found is None or found.permutation is None:
            one_seed = "one seed: see McNemar's test in Table 1"
            remark = self.classes.reasons.get((arm, role), one_seed)
        else:
            counts, p_value = found.counts, found.permutation.p_count
            verdict, shift = verdicts.beyond_chance(p_value, found.table)
            smallest = 1 / found.permutation.splits
            remark = (
                f"{counts.significant} of {counts.tested} classes; "
                f"{counts.expected_by_chance:.2g} by chance"
            )
            if smallest >= LEVEL:
                remark += f"; these seeds cannot give p below {smallest:.2g}"
        return Claim(claim, verdict, quantity, shift, 100, test, p_value, sample, remark)

    # ---- group fairness

    def _group_fairness(self) -> Iterator[Claim]:
        for fairness in self.fairness.values():
            if not isinstance(fairness.attribute, str):
                continue
            for metric in _NAMES:
                yield from self._one_metric(fairness, metric)

    def _one_metric(self, fairness: GroupFairness, metric: str) -> Iterator[Claim]:
        attribute = attribute_name(fairness.attribute)
        name, of = _NAMES[metric], f"{_NAMES[metric]} ({attribute})"
        column = fairness_metric(fairness.attribute, metric)
        usual = self._grid(column, with_nds=True)
        arms = [self.arm_at[temperature] for temperature in usual.temperatures]
        if usual.seeds:
            yield self._change(
                f"DS is fairer than the NDS: {of}",
                -1,
                fairness.change(arms, NDS, metric),
                f"mean {name} of DS over {_range(usual.temperatures)}, minus NDS",
            )
        # A difference of base rates is not a fault of the model.
        perfect = f"a perfect classifier has DPD {100 * fairness.labels.dpd:.2f}"
        base = perfect if metric == "dpd" else ""
        yield self._trend(
            f"Fairness improves with T up to 10: {of} falls",
            -1,
            column,
            name,
            100,
            base,
            lambda temperature: fairness.parity(self.arm_at[temperature], metric).mean,
            width=1.0,
        )
        high = self.usual[-1:]
        if high and self.study.seeds(TEACHER):
            yield self._change(
                f"DS at high T is fairer than its teacher: {of}",
                -1,
                fairness.change(high, TEACHER, metric),
                f"{name} of {self._name(high[0])}, minus Teacher",
                base,
            )
        if high and self.very_high:
            names = _range([temperature_of(arm) for arm in self.very_high])
            yield self._change(
                f"Very high T turns back: {of} rises again",
                1,
                fairness.change(self.very_high, high[0], metric),
                f"mean {name} of DS over {names}, minus {self._name(high[0])}",
            )

    def _change(
        self, claim: str, sign: int, change: Change, quantity: str, remark: str = ""
    ) -> Claim:
        verdict = verdicts.by_interval(sign, change.interval, change.chance)
        remarks = [remark, _one_seed(change.seeds)]
        if change.levelling_down:
            remarks.append("levelling down: every group's accuracy falls")
        if verdict is not verdicts.by_interval(sign, change.interval):
            remarks.append(
                f"not beyond its chance level, which differs by {100 * change.chance:+.2f}"
            )
        return Claim(
            claim,
            verdict,
            quantity,
            change.interval,
            100,
            "paired bootstrap over seeds and examples, 95% interval",
            np.nan,
            f"{counted(len(change.seeds), 'seed')}, {len(self.study.any_table)} examples",
            _joined(*remarks),
        )

    # ---- individual fairness

    def _individual_fairness(self) -> Iterator[Claim]:
        for column, output, remark in (
            (INDIVIDUAL, "probabilities", "falls with softer outputs, whatever decisions do"),
            (INDIVIDUAL_LABELS, "predicted labels", "no softening can move it"),
            (INDIVIDUAL_CALIBRATED, "calibrated probabilities", "at each model's calibration"),
        ):
            if column not in self.runs:
                continue
            yield self._trend(f"I(f) falls as T rises: {output}", -1, column, "I(f)", 1, remark)
            grid = self._grid(column, with_nds=True)
            known = [seed for seed in grid.seeds if self._nds_value(seed, column) is not None]
            if not known:
                continue
            own = _values(self.runs, Grid(grid.temperatures, tuple(known)), column).mean(axis=1)
            nds = np.array([self._nds_value(seed, column) for seed in known], dtype=float)
            change = mean_over_seeds(own - nds)
            yield Claim(
                f"DS is individually fairer than the NDS: {output}",
                verdicts.by_interval(-1, change),
                f"mean I(f) of DS over {_range(grid.temperatures)}, minus NDS",
                change,
                1,
                "paired t-interval over seeds, on fixed pairs of examples",
                np.nan,
                f"{counted(len(known), 'seed')}, {self.study.pairs} pairs",
                _joined(remark, _one_seed(known)),
            )

    def _nds_value(self, seed: int, column: str) -> float | None:
        model = self.study.reference(Role.STUDENT, seed)
        return None if model is None else model.scores.get(column)


def _values(runs: pd.DataFrame, grid: Grid, column: str) -> FloatArray:
    """A metric as [seeds, temperatures]."""
    chosen = runs.pivot(index="seed", columns="temperature", values=column)
    return chosen.loc[list(grid.seeds), list(grid.temperatures)].to_numpy(dtype=float)


def _joined(*remarks: str) -> str:
    return "; ".join(remark for remark in remarks if remark)


def _one_seed(seeds: Sequence[int]) -> str:
    return "one seed: no interval over seeds" if len(seeds) == 1 else ""


def counted(number: int, noun: str) -> str:
    """Returns how many there are, such as `1 seed` or `5 seeds`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _range(temperatures: Sequence[float]) -> str:
    """Names temperatures: `T = 1` or `T = 1 to 10`."""
    if not temperatures:
        return "no T"
    low, high = min(temperatures), max(temperatures)
    return f"T = {low:g}" if low == high else f"T = {low:g} to {high:g}"
