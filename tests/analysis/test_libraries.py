"""The statistics beside those of scikit-bio, statsmodels, scipy and scikit-learn, on the same data.

PERMDISP is left out: scikit-bio's leaves the other factors in, and its spreads are smaller in small groups.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.spatial.distance import pdist, squareform
from sklearn import manifold

from promptgeo.analysis.geometry.planes import classical_mds, neighbour_ranks, pca, trustworthiness
from promptgeo.analysis.geometry.variance import Inner, omega2, unit
from promptgeo.analysis.question import Convention, Of
from promptgeo.analysis.questions.sequences import sequences
from promptgeo.analysis.resampling import (
    bootstrap_mean,
    clopper_pearson,
    drawn_means,
    holm,
    jackknife_interval,
    newcombe,
    sign_flip_p,
    t_interval,
    upper_of_few,
    wilson,
)
from promptgeo.runs.table import RunTable

LEVELS = [0, 0, 0, 1, 1, 2, 2, 2, 2]
"""Of nine runs, in groups of three sizes."""


@pytest.fixture
def vectors():
    """[N, P, d]: nine runs of four tokens, their groups a little apart."""
    generator = np.random.default_rng(0)
    return generator.normal(size=(9, 4, 6)) + 0.4 * generator.normal(size=(3, 1, 6))[LEVELS]


# Variance.


def test_r2_is_that_of_scikit_bios_permanova(vectors):
    from skbio.stats.distance import DistanceMatrix, permanova

    distances = DistanceMatrix(squareform(pdist(unit(vectors).reshape(36, 6))))
    theirs = permanova(distances, np.repeat(LEVELS, 4), permutations=0)
    r2 = Inner.of(unit(vectors)).r2(np.array(LEVELS))
    assert (r2 / 2) / ((1 - r2) / (36 - 3)) == pytest.approx(theirs["test statistic"], abs=1e-9)


def test_r2_and_omega2_are_those_of_statsmodels_anova_summed_over_coordinates(vectors):
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    columns = unit(vectors[:, :1])[:, 0].T
    tables = [
        anova_lm(ols("value ~ C(level)", pd.DataFrame({"value": column, "level": LEVELS})).fit()) for column in columns
    ]
    between, within = sum(table["sum_sq"].to_numpy() for table in tables)
    mean_square = sum(table["mean_sq"].iloc[1] for table in tables)
    r2 = Inner.of(unit(vectors[:, :1])).r2(np.array(LEVELS))
    assert r2 == pytest.approx(between / (between + within), abs=1e-9)
    wanted = (between - 2 * mean_square) / (between + within + mean_square)
    assert omega2(r2, 9, 3) == pytest.approx(wanted, abs=1e-9)


# Distances.


def test_the_correlation_of_two_inits_is_scikit_bios_mantel():
    from skbio.stats.distance import DistanceMatrix, mantel

    generator = np.random.default_rng(1)
    shared, names = generator.normal(size=(6, 5)), [f"t{k}" for k in range(6)]
    prompts = np.stack([shared + 0.8 * generator.normal(size=(6, 5)) for _ in range(2)])
    table = pd.DataFrame({"init": np.repeat(["cat", "dog"], 6), "task": names * 2, "seed": 0, "prompt_length": 1})
    runs = RunTable.from_arrays(prompts.reshape(12, 1, 5), table, np.zeros((12, 1, 5)))
    result = sequences(runs, of=Of.prompt, convention=Convention.corrected)
    (ours,) = [number for number in result.numbers if number.quantity == "pearson.minimum"]
    float32 = prompts.astype(np.float32).astype(float)
    first, second = (DistanceMatrix(squareform(pdist(part, "cosine")), names) for part in float32)
    r, p, _ = mantel(first, second, permutations=9999, alternative="greater", seed=0)
    assert ours.value == pytest.approx(r, abs=1e-5)
    assert ours.p == pytest.approx(p, abs=0.02)  # all 720 orders, and 9,999 of them


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_trustworthiness_is_scikit_learns(metric):
    points = np.random.default_rng(2).normal(size=(40, 5))
    plane = points[:, :2] + 0.5 * np.random.default_rng(3).normal(size=(40, 2))
    ranks = neighbour_ranks(squareform(pdist(points, metric)))
    shown = np.argsort(squareform(pdist(plane)), axis=1)[:, 1:6]
    ours = trustworthiness(ranks, shown).mean()
    assert ours == pytest.approx(manifold.trustworthiness(points, plane, n_neighbors=5, metric=metric), abs=1e-12)


def test_planes_are_those_of_scikit_bio_and_scikit_learn():
    from skbio.stats.distance import DistanceMatrix
    from skbio.stats.ordination import pcoa
    from sklearn.decomposition import PCA

    points = np.random.default_rng(4).normal(size=(12, 5)) * [3, 2, 1, 1, 1]
    distances = squareform(pdist(points))
    theirs = pcoa(DistanceMatrix(distances), dimensions=2).samples.to_numpy()
    np.testing.assert_allclose(np.abs(classical_mds(distances)), np.abs(theirs), atol=1e-8)
    np.testing.assert_allclose(np.abs(pca(points)), np.abs(PCA(2).fit_transform(points)), atol=1e-8)


# Intervals.


@pytest.mark.parametrize(("successes", "n"), [(0, 72), (1, 5), (17, 40), (40, 40)])
def test_intervals_of_a_proportion_are_statsmodels(successes, n):
    from statsmodels.stats.proportion import proportion_confint

    assert wilson(successes, n) == pytest.approx(proportion_confint(successes, n, method="wilson"), abs=1e-9)
    assert clopper_pearson(successes, n) == pytest.approx(proportion_confint(successes, n, method="beta"), abs=1e-9)


@pytest.mark.parametrize(("first", "second"), [((56, 70), (48, 80)), ((10, 10), (0, 20)), ((0, 9), (3, 8))])
def test_the_interval_of_a_difference_of_proportions_is_statsmodels_newcombe(first, second):
    from statsmodels.stats.proportion import confint_proportions_2indep

    theirs = confint_proportions_2indep(*first, *second, method="newcomb", compare="diff")
    ours = newcombe(first[0] / first[1], wilson(*first), second[0] / second[1], wilson(*second))
    assert ours == pytest.approx(theirs, abs=1e-7)


def test_the_bootstrap_interval_of_a_mean_is_scipys():
    values = np.random.default_rng(5).gamma(2.0, size=30)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=40_000, method="percentile", rng=np.random.default_rng(6)
    ).confidence_interval
    assert bootstrap_mean(values, draws=40_000) == pytest.approx(tuple(theirs), abs=0.02)  # 0.01 by chance


def test_t_intervals_are_scipys():
    values = np.random.default_rng(7).normal(size=5)
    theirs = tuple(stats.ttest_1samp(values, 0).confidence_interval())
    without = np.array([np.delete(values, k).mean() for k in range(5)])
    assert jackknife_interval(values.mean(), without) == pytest.approx(theirs, abs=1e-12)
    drawn = drawn_means(values, draws=100_000, seed=0)
    assert t_interval(values.mean(), drawn, 5) == pytest.approx(theirs, rel=0.02)


# p.


@pytest.mark.parametrize("events", [0, 1, 3, 40])
def test_the_upper_end_of_a_mean_of_few_events_is_the_exact_one_of_a_poisson_count(events):
    """Garwood's interval by the chi-squared distribution: events of .2 each, of which none counts as one's error."""
    exact = stats.chi2.ppf(0.975, 2 * (events + 1)) / 2
    assert upper_of_few(0.2 * events, 0.2 * np.sqrt(max(events, 1))) == pytest.approx(0.2 * exact)
    assert upper_of_few(0.2 * events, 0.0) == 0.2 * events


def test_sign_flips_are_scipys_exact_permutations_of_pairs():
    differences = np.random.default_rng(8).normal(1.4, 1.0, size=9)
    theirs = stats.permutation_test(
        (differences, np.zeros(9)), lambda a, b: (a - b).sum(), permutation_type="samples", vectorized=False
    )
    assert sign_flip_p(differences) == pytest.approx(theirs.pvalue, abs=1e-12)
    assert 0.001 < theirs.pvalue < 0.5


def test_holms_p_are_statsmodels():
    from statsmodels.stats.multitest import multipletests

    p = np.random.default_rng(9).uniform(size=12) ** 3
    np.testing.assert_allclose(holm(p.tolist()), multipletests(p, method="holm")[1], atol=1e-12)
