from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kdplatform.analysis import profiles as profiles_module
from kdplatform.analysis import threads
from kdplatform.analysis.bootstrap import bootstrap_fairness
from kdplatform.analysis.group_fairness import METRICS, fairness_metrics
from kdplatform.analysis.group_rates import count_codes, metric_values
from kdplatform.analysis.multinomial import Resampler
from kdplatform.analysis.profiles import Profiles, models_of_arms


def tables(seeds=1, n=300, classes=2, groups=3, accuracy=0.8, example_seed=0, model_seed=1):
    """Models on the same examples, whose errors are partly shared."""
    examples = np.random.default_rng(example_seed)
    labels, group = examples.integers(0, classes, n), examples.integers(0, groups, n)
    hard = examples.random(n)
    rng = np.random.default_rng(model_seed)
    result = []
    for _ in range(seeds):
        wrong = 0.5 * (hard + rng.random(n)) > accuracy - 0.1 * (group == 0)
        prediction = np.where(wrong, (labels + rng.integers(1, classes, n)) % classes, labels)
        result.append(
            pd.DataFrame(
                {
                    "id": np.arange(n),
                    "label": labels,
                    "prediction": prediction,
                    "color": np.array(list("abcdef"))[group],
                }
            )
        )
    return result


@pytest.mark.parametrize("classes", [2, 4])
def test_estimates_are_the_models_metrics_averaged_over_seeds(classes):
    models = tables(3, classes=classes)
    result = bootstrap_fairness({"ds": models}, "color", draws=10)
    each = [asdict(fairness_metrics(table, "color")) for table in models]
    for metric in METRICS:
        expected = np.mean([values[metric] for values in each])
        assert result.interval("ds", metric).estimate == pytest.approx(expected)


@pytest.mark.parametrize("n", [60, 3000], ids=["rare profiles", "common profiles"])
def test_counts_of_a_draw_are_those_of_the_resampled_tables(n):
    models = tables(2, n=n, classes=3)
    on_groups = models_of_arms({"a": models}, "color", 1)
    profiles = Profiles(on_groups)
    chosen = np.random.default_rng(3).integers(0, n, n)
    sizes = np.bincount(profiles.profile[chosen], minlength=len(profiles.size))
    [counts] = profiles.counts(sizes[:, None])
    drawn = metric_values(counts, on_groups.large)
    for position, table in enumerate(models):
        resampled = table.iloc[chosen].assign(id=np.arange(n))
        expected = asdict(fairness_metrics(resampled, "color", min_group_size=1))
        for metric in METRICS:
            assert drawn[metric][0, position] == pytest.approx(expected[metric])


@pytest.mark.parametrize("n", [60, 3000], ids=["rare profiles", "common profiles"])
def test_draws_have_the_mean_and_variance_of_resampling_with_replacement(n):
    profiles = Profiles(models_of_arms({"a": tables(2, n=n)}, "color", 1))
    sizes = Resampler(profiles.size).draw(4000, np.random.default_rng(0))
    share = profiles.size / n
    assert np.all(sizes.sum(axis=0) == n)
    np.testing.assert_allclose(sizes.mean(axis=1), profiles.size, rtol=0.2)
    np.testing.assert_allclose(sizes.var(axis=1), n * share * (1 - share), rtol=0.2)


def test_groups_and_predictions_of_other_rows_orders_are_aligned():
    models = tables(2)
    shuffled = [models[0], models[1].sample(frac=1, random_state=0)]
    first = bootstrap_fairness({"ds": models}, "color", draws=50)
    assert first.table().equals(bootstrap_fairness({"ds": shuffled}, "color", draws=50).table())


def test_examples_that_change_their_group_are_counted_and_named():
    one, other = tables(2)
    other = other.copy()
    ids = other["id"].head(4).tolist()
    other.loc[other["id"].isin(ids), "color"] = "another"
    with pytest.raises(ValueError, match=f"'color' for 4 of {len(one)} ids .{ids[0]}, {ids[1]}, "):
        bootstrap_fairness({"ds": [one, other]}, "color", draws=5)


def test_paired_intervals_are_narrower_than_unpaired_ones():
    arms = {"nds": tables(1, n=2000), "ds": tables(1, n=2000, model_seed=2)}
    result = bootstrap_fairness(arms, "color", draws=1000)
    change = result.difference("ds", "nds", "accuracy_gap")
    parts = [result.interval(arm, "accuracy_gap") for arm in arms]
    unpaired = np.hypot(*[(part.high - part.low) / 2 for part in parts])
    assert (change.high - change.low) / 2 < 0.95 * unpaired


def studies(kind):
    """Simulated studies: yields the interval of the DPD, or of its change, with the true value.

    Groups a and b are selected with probability .7 and .5 by the reference and .7 and .6 by the
    other arm, apart from seeds, which move group b's by a deviation of .03; half of the luck of an
    example is shared by all models.
    """
    rng = np.random.default_rng(21)
    n = 600
    group = np.repeat([0, 1], n // 2)
    frame = pd.DataFrame({"id": np.arange(n), "color": np.array(["a", "b"])[group]})
    seeds = 1 if kind == "one model" else 5
    for _ in range(150):
        shared = rng.normal(size=n)
        arms = {}
        for arm, rate in (("nds", 0.5), ("ds", 0.6))[: 2 if kind == "change" else 1]:
            arms[arm] = []
            for _ in range(seeds):
                moved = rate + (rng.normal(0, 0.03) if seeds > 1 else 0)
                threshold = stats.norm.ppf(np.where(group == 0, 0.7, moved))
                luck = np.sqrt(0.5) * (shared + rng.normal(size=n))
                prediction = (luck < threshold).astype(int)
                arms[arm].append(frame.assign(label=rng.integers(0, 2, n), prediction=prediction))
        labels = arms["nds"][0]["label"]
        arms = {k: [t.assign(label=labels) for t in v] for k, v in arms.items()}
        result = bootstrap_fairness(arms, "color", draws=300)
        if kind == "change":
            yield result.difference("ds", "nds", "dpd"), 0.1 - 0.2
        else:
            yield result.interval("nds", "dpd"), 0.2


@pytest.mark.parametrize("kind", ["one model", "five seeds", "change"])
def test_intervals_cover_the_truth_at_their_nominal_rate(kind):
    covered = [interval.low <= truth <= interval.high for interval, truth in studies(kind)]
    rate = stats.binomtest(int(np.sum(covered)), len(covered)).proportion_ci(0.99)
    assert rate.low < 0.95 < rate.high


def test_a_group_of_one_example_leaves_draws_without_it_to_the_others():
    data = tables(1)[0]
    data.loc[0, "color"] = "alone"
    interval = bootstrap_fairness({"ds": [data]}, "color", draws=200).interval("ds", "accuracy_gap")
    assert np.isfinite(interval).all()
    assert interval.low < interval.estimate < interval.high


def test_equal_predictions_have_no_spread_to_bootstrap():
    data = tables(1)[0].assign(prediction=1)
    result = bootstrap_fairness({"ds": [data]}, "color", draws=50)
    assert result.interval("ds", "dpd") == (0.0, 0.0, 0.0)


def test_bad_arguments_are_refused():
    models = tables(1)
    with pytest.raises(ValueError, match="draws is 1"):
        bootstrap_fairness({"ds": models}, "color", draws=1)
    with pytest.raises(ValueError, match="confidence is 95"):
        bootstrap_fairness({"ds": models}, "color", confidence=95)
    with pytest.raises(ValueError, match="arms are"):
        bootstrap_fairness({"ds": []}, "color")
    result = bootstrap_fairness({"ds": models}, "color", draws=10)
    with pytest.raises(ValueError, match="arm is 'nds'"):
        result.difference("ds", "nds", "dpd")
    with pytest.raises(ValueError, match="metric is 'dp'"):
        result.interval("ds", "dp")


def test_tables_that_disagree_on_groups_are_refused():
    first, second = tables(2)
    with pytest.raises(ValueError, match="disagree on the groups of 'color'"):
        bootstrap_fairness(
            {"ds": [first, second.assign(color=second["color"].to_numpy()[::-1])]}, "color"
        )


def test_intervals_of_many_classes_are_those_of_resampling_the_examples():
    classes, n, draws = 12, 400, 3000
    arms = {"nds": tables(1, n=n, classes=classes)}
    arms["ds"] = tables(1, n=n, classes=classes, model_seed=2)
    result = bootstrap_fairness(arms, "color", draws=draws, min_group_size=1)
    models = models_of_arms(arms, "color", 1)
    rng, resampled = np.random.default_rng(4), []
    for _ in range(600):
        chosen = rng.integers(0, n, n)
        codes, labels = models.groups.codes[chosen], models.labels[chosen]
        for prediction in models.predictions:
            sizes = len(models.groups.members), models.n_classes
            counts = count_codes(codes, labels, prediction[chosen], *sizes)
            resampled.append(metric_values(counts, models.large))
    plain = {
        metric: np.array([float(each[metric]) for each in resampled]).reshape(-1, 2).T
        for metric in METRICS
    }
    for metric in METRICS:
        samples = [result.samples[arm][metric] for arm in arms]
        for own, other in zip(
            [*samples, samples[1] - samples[0]],
            [*plain[metric], plain[metric][1] - plain[metric][0]],
            strict=True,
        ):
            # Deviations of 600 draws are known to about 3%, so that 4 errors are 12%.
            assert np.std(own) == pytest.approx(np.std(other), rel=0.13), metric
            assert stats.ks_2samp(own, other).pvalue > 1e-4, metric


def test_draws_are_the_same_whatever_the_number_of_threads(monkeypatch):
    monkeypatch.setattr(profiles_module, "COUNTS_AT_ONCE", 4000)
    arms = {"nds": tables(2, n=300, classes=5), "ds": tables(2, n=300, classes=5, model_seed=2)}
    found = []
    for cores in (1, 3):
        monkeypatch.setattr(threads, "usable_cores", lambda cores=cores: cores)
        boot = bootstrap_fairness(arms, "color", draws=500, min_group_size=1)
        found.append((boot.table(), boot.null))
    pd.testing.assert_frame_equal(found[0][0], found[1][0], check_exact=True)
    pd.testing.assert_frame_equal(found[0][1], found[1][1], check_exact=True)
