from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlflow_quantgov.artifact.runtimes.llama_cpp.scoring import (
    MAX_TOGETHER,
    Pair,
    log_probability,
    packs,
    tokens_of,
)

CONTEXTS = st.sampled_from([(1,), (1, 2), (3,) * 40, (4,) * 7])
CONTINUATIONS = st.lists(st.integers(0, 9), min_size=1, max_size=30).map(tuple)


@given(drawn=st.lists(st.tuples(CONTEXTS, CONTINUATIONS), max_size=90), room=st.integers(10, 200))
def test_packs_hold_every_pair_once_and_fit(drawn, room):
    pairs = [Pair(i, context, continuation) for i, (context, continuation) in enumerate(drawn)]
    made = list(packs(pairs, room))
    assert sorted(pair.index for pack in made for group in pack for pair in group) == list(range(len(pairs)))
    for pack in made:
        assert sum(len(group) for group in pack) <= MAX_TOGETHER
        assert all(len({pair.context for pair in group}) == 1 for group in pack)
        assert tokens_of(pack) <= room or (len(pack) == 1 and len(pack[0]) == 1)


@given(row=st.lists(st.floats(-80, 80, width=32), min_size=2, max_size=20))
def test_log_probabilities_are_those_of_a_softmax(row):
    logits = np.array(row, dtype=np.float32)
    found = np.array([log_probability(logits, i) for i in range(len(row))])
    assert abs(np.exp(found).sum() - 1) < 1e-5
    expected = logits.astype(float) - np.logaddexp.reduce(logits.astype(float))
    assert np.allclose(found, expected, atol=1e-4)
