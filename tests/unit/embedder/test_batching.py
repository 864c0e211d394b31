"""embedder_backend.batching: which rows go through the model together."""

from __future__ import annotations

from embedder_backend.batching import batches
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.integers(1, 256), max_size=100), st.integers(256, 4096))
def test_every_row_goes_once_and_no_batch_is_too_large(lengths: list[int], budget: int) -> None:
    """Whatever the lengths, no row is lost or doubled, and no padded batch exceeds the budget."""
    found = list(batches(lengths, budget))
    assert sorted(index for batch in found for index in batch) == list(range(len(lengths)))
    for batch in found:
        assert len(batch) * max(lengths[index] for index in batch) <= budget


def test_neighbours_in_length_go_together() -> None:
    """Short rows are not filled up to the length of a long one where that can be avoided."""
    assert list(batches([200, 3, 201, 4], 420)) == [[1, 3], [0, 2]]
