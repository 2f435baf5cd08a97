"""The fitted baselines against a count by hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mechproc.procedures.guessing import Guesser

predictions = st.lists(st.tuples(st.sampled_from([-7, 0, 3, 10**15]), st.integers(0, 4)), min_size=1, max_size=60)


@given(predictions)
@settings(deadline=None)
def test_the_guess_is_the_most_frequent_target_and_the_lowest_of_several(seen):
    contexts, targets = np.array(seen, dtype=np.int64).T
    guesser = Guesser.fit(contexts, targets, d_vocab=5)
    expected = {}
    for context in set(contexts.tolist()):
        counts = Counter(t for c, t in seen if c == context)
        expected[context] = min(t for t, n in counts.items() if n == max(counts.values()))
    assert guesser.guess(contexts).tolist() == [expected[c] for c in contexts.tolist()]
    assert guesser.accuracy(contexts, targets) == np.mean([expected[c] == t for c, t in seen])


def test_a_context_never_seen_gets_the_guess_of_a_neighbour():
    guesser = Guesser.fit(np.array([10, 20]), np.array([1, 2]), d_vocab=3)
    assert guesser.guess(np.array([5, 15, 99])).tolist() == [1, 2, 2]
