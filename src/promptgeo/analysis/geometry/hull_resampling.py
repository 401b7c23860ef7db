"""What would a mean over a hull's prompts be with other trainings and other test examples?

Nearly every mixture holds a bit of a training that a draw has not got, so mixtures are not dropped but corrected: a
training's effect is the least-squares coefficient of the scores on its weights, the linear part of the score (Hajek's
projection), and a draw moves a mean by the effects of the trainings that it has too often or not at all. Right for
scores linear in the weights, wider than need be where they spread for other reasons. Few trainings are few: their
effects are enlarged by what Student's t is wider than the normal distribution (student).

Shapes: N runs of the table, U runs that some prompt is made of, V vertices of a hull, S prompts, E test examples, B
draws.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from promptgeo.analysis.geometry.hulls import PUBLISHED_HULLS, PUBLISHED_MIXTURES, Hull, Measure
from promptgeo.analysis.resampling import Resampler, student

BLOCK = 256
"""Prompts whose scores are held at once in every draw: 2 MB for 1,000 draws, however many mixtures there are."""
EVERYTHING = slice(None)


def published_extremes(
    hull: Hull, vertices_BV: np.ndarray, mixtures_BHS: np.ndarray, hull_B: np.ndarray
) -> dict[tuple[str, str], np.ndarray]:
    """[B] float64 of (kind, which): of the vertices and mixtures of hull hull_B[b] of those drawn as published."""
    b_B = np.arange(len(hull_B))
    weights_HSN = hull.kinds["published"].weights_SN[:, hull.members].reshape(PUBLISHED_HULLS, PUBLISHED_MIXTURES, -1)
    chosen_BV, mixtures_BS = (weights_HSN.sum(1) > 0)[hull_B], mixtures_BHS[b_B, hull_B]
    return {
        ("vertices", "min"): np.where(chosen_BV, vertices_BV, np.inf).min(1),
        ("vertices", "max"): np.where(chosen_BV, vertices_BV, -np.inf).max(1),
        ("mixtures", "min"): mixtures_BS.min(1),
        ("mixtures", "max"): mixtures_BS.max(1),
        ("mixtures", "mean"): mixtures_BS.mean(1),
    }


class HullResampler(Resampler):
    """Draws the trainings of each hull among themselves, and each task's test examples; the same for all compared."""

    def __init__(self, groups: Sequence[Sequence[int]], runs: int, draws: int, seed: int):
        super().__init__(groups, runs, draws, seed)
        self.effects_BN = self.runs_BN - 1
        """[B, N] float64: how often each run is in a draw beyond once, enlarged as Student's t is."""
        for members in groups:
            self.effects_BN[:, list(members)] *= student(len(members))

    def scores(self, hull: Hull, kind: str, measure: Measure, chosen: slice = EVERYTHING) -> np.ndarray:
        """[B, S] float64: each prompt's accuracy, or loss in nats a label token, on the drawn examples."""
        return self._shares(hull, measure) @ hull.kinds[kind].values(measure)[chosen].T

    def score_blocks(self, hull: Hull, kind: str, measure: Measure) -> Iterator[np.ndarray]:
        """scores() of a few prompts at a time."""
        for start in range(0, len(hull.kinds[kind]), BLOCK):
            yield self.scores(hull, kind, measure, slice(start, start + BLOCK))

    def published(self, hull: Hull) -> dict[tuple[str, str], np.ndarray]:
        """[B] float64 of (kind, which): the least, most and mean accuracy of hulls as published, on drawn examples.

        Draw b is of the hull b modulo how many there are.
        """
        vertices_BV = self.scores(hull, "vertices", "accuracy")
        mixtures_BHS = self.scores(hull, "published", "accuracy").reshape(len(vertices_BV), -1, PUBLISHED_MIXTURES)
        return published_extremes(hull, vertices_BV, mixtures_BHS, np.arange(len(vertices_BV)) % PUBLISHED_HULLS)

    def vertex_scores(self, hull: Hull, measure: Measure, missing: float) -> np.ndarray:
        """[B, V] float64: scores() of the vertices; `missing` where a draw lacks the training."""
        return np.where(self.runs_BN[:, hull.members] > 0, self.scores(hull, "vertices", measure), missing)

    def mean(
        self,
        hull: Hull,
        kind: str,
        measure: Measure,
        chosen: np.ndarray | slice = EVERYTHING,
        effects_from: str | None = None,
    ) -> np.ndarray:
        """[B] float64: means() of scores(), without holding B x S scores.

        effects_from: the kind to learn the trainings' effects from, where the prompts themselves are too few.
        """
        scored, shares_BE = hull.kinds[kind], self._shares(hull, measure)
        values_SE, weights_SN = scored.values(measure)[chosen], scored.weights_SN[chosen]
        from_SE, from_SN = values_SE, weights_SN
        if effects_from:
            from_SE, from_SN = hull.kinds[effects_from].values(measure), hull.kinds[effects_from].weights_SN
        used_U = np.flatnonzero(from_SN.any(0))
        effects_UE = np.linalg.pinv(from_SN[:, used_U]) @ from_SE
        return self._moved(shares_BE @ values_SE.mean(0), shares_BE @ effects_UE.T, weights_SN, used_U)

    def means(self, scores_BS: np.ndarray, weights_SN: np.ndarray) -> np.ndarray:
        """[B] float64: the mean score, moved by the effects of trainings that a draw has too often or not at all."""
        used_U = np.flatnonzero(weights_SN.any(0))
        effects_BU = scores_BS @ np.linalg.pinv(weights_SN[:, used_U]).T
        return self._moved(scores_BS.mean(1), effects_BU, weights_SN, used_U)

    def _shares(self, hull: Hull, measure: Measure) -> np.ndarray:
        """[B, E]: how much each example weighs in a mean."""
        drawn_BE = self.examples(hull.evaluation_set, hull.evaluation_set.n)
        return drawn_BE / ((drawn_BE @ hull.tokens_E)[:, None] if measure == "loss" else hull.evaluation_set.n)

    def _moved(
        self, mean_B: np.ndarray, effects_BU: np.ndarray, weights_SN: np.ndarray, used_U: np.ndarray
    ) -> np.ndarray:
        share_U = weights_SN[:, used_U].mean(0)
        centred_BU = effects_BU - (effects_BU @ share_U / share_U.sum())[:, None]
        return mean_B + (self.effects_BN[:, used_U] * share_U * centred_BU).sum(1)
