"""How many vocabulary tokens lie around prompt tokens and around random vocabulary tokens, and how far is the nearest?

By the convention `paper`, as study 3 counted: a vocabulary token is its own neighbour, and the init words stand in the
vocabulary twice and in the random sample besides. `corrected`: none of that.

Shapes: K prompt tokens, V vocabulary, S sampled vocabulary tokens, E radii, d width.
"""

from dataclasses import dataclass

import numpy as np

from promptgeo.analysis.geometry.tokens import Tokens
from promptgeo.analysis.geometry.vocabulary import Vocabulary, init_words, require_width
from promptgeo.analysis.question import Convention
from promptgeo.runs.table import RunTable


@dataclass(frozen=True)
class WordCounts:
    """What lies around the prompt tokens and around the sampled vocabulary tokens."""

    prompt_words_EK: np.ndarray
    """int64: vocabulary tokens closer than each radius to a prompt token."""
    sample_words_ES: np.ndarray
    """int64: likewise to a sampled token."""
    sample_prompts_ES: np.ndarray
    """int64: prompt tokens closer than each radius to a sampled token."""
    prompt_nearest_K: np.ndarray
    """float64: cosine distance of a prompt token to the nearest vocabulary token."""
    prompt_nearest_token_K: list[str]
    """What that token says."""
    sample_nearest_S: np.ndarray
    """float64: cosine distance of a sampled token to the nearest other vocabulary token."""
    sample_nearest_prompt_S: np.ndarray
    """float64: likewise to the nearest prompt token."""
    prompt_inits_EK: np.ndarray
    """int64: init words closer than each radius to a prompt token."""
    sample_inits_ES: np.ndarray
    """int64: likewise to a sampled token, which counts itself by the convention `paper`."""
    initial_words_EK: np.ndarray | None
    """int64: vocabulary tokens closer than each radius to a token of P0; None where there is no P0, or it is 0."""


def count_words(
    runs: RunTable,
    vocabulary: Vocabulary,
    points: Tokens,
    radii: tuple[float, ...],
    sample: int,
    seed: int,
    convention: Convention,
    initial_Kd: np.ndarray | None = None,
) -> WordCounts:
    """Vocabulary tokens around the runs' prompt tokens and around random vocabulary tokens.

    Args:
        runs: their inits name the init words.
        points: the runs' prompt tokens.
        radii: cosine distances within which tokens are counted.
        sample: random vocabulary tokens; by the convention `paper` the init words are added to them.
        seed: of the sample.
        convention: how tokens are counted, as the top of this file says.
        initial_Kd: the tokens of the runs' P0.

    Raises UserError for a vocabulary of another width, or a prompt token of length 0.
    """
    unit_Kd = points.unit_Kd
    require_width(vocabulary, unit_Kd)
    k, sampled_S = len(unit_Kd), vocabulary.sample(sample, seed)
    words = [word for word in dict.fromkeys(init_words(runs).values()) if word in vocabulary.index]
    doubled = np.array([vocabulary.index[word] for word in words], dtype=np.int64)
    # One query serves both conventions, whose results the vocabulary caches.
    queries_S = np.concatenate([sampled_S, doubled])
    different_Ud, which_K = _initial(initial_Kd)
    queries = np.concatenate([unit_Kd, vocabulary.unit(queries_S)])
    own = np.concatenate([np.full(k, -1), queries_S, np.full(len(different_Ud), -1)])
    asked = np.concatenate([queries, different_Ud.astype(queries.dtype)]) if len(different_Ud) else queries
    near = vocabulary.near(asked, radii, 1, own)
    counts, initial_EU = near.counts_EK[:, : len(queries)], near.counts_EK[:, len(queries) :]
    again = 1.0 - queries.astype(np.float64) @ vocabulary.unit(doubled).T.astype(np.float64)
    inits = np.stack([(again < radius).sum(1) for radius in radii])
    if convention == Convention.paper:
        counts = counts + inits
        counts[:, k:] += 1  # each sampled token is its own neighbour
        sampled_S = queries_S
    else:
        inits[:, k:] -= np.isin(queries_S, doubled)
    total = k + len(sampled_S)
    to_prompts_SK = 1.0 - queries[k:total].astype(np.float64) @ unit_Kd.T.astype(np.float64)
    distances = np.maximum(near.distances_Kk[:total, 0].astype(np.float64), 0.0)
    return WordCounts(
        prompt_words_EK=counts[:, :k],
        sample_words_ES=counts[:, k:total],
        sample_prompts_ES=np.stack([(to_prompts_SK < radius).sum(1) for radius in radii]),
        prompt_nearest_K=distances[:k],
        prompt_nearest_token_K=[vocabulary.tokens[i] for i in near.nearest_Kk[:k, 0]],
        sample_nearest_S=distances[k:],
        sample_nearest_prompt_S=np.maximum(to_prompts_SK.min(1), 0.0),
        prompt_inits_EK=inits[:, :k],
        sample_inits_ES=inits[:, k:total],
        initial_words_EK=None if which_K is None else initial_EU[:, which_K],
    )


def _initial(initial_Kd: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """(the different tokens of P0 [U, d] at length 1, which of them each token is): runs of an init share theirs."""
    if initial_Kd is None or not initial_Kd.any(axis=1).all():
        return np.empty((0, 0)), None
    different_Ud, which_K = np.unique(initial_Kd, axis=0, return_inverse=True)
    return different_Ud / np.linalg.norm(different_Ud, axis=1, keepdims=True), which_K.ravel()
