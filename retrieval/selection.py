"""Rows that FAISS shall look at, or take out. Its published types know less than its calls; here is where they are ignored."""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray


def selector(chosen: NDArray[np.bool_]) -> faiss.IDSelector:
    """Of numbers from 0 on. It holds what it looks into."""
    bits = np.packbits(chosen, bitorder="little")
    return faiss.IDSelectorBitmap(bits)  # type: ignore[call-arg,arg-type]  # takes an array, and keeps it


def exactly(chosen: NDArray[np.bool_] | None) -> faiss.SearchParameters | None:
    """None: all rows."""
    return None if chosen is None else faiss.SearchParameters(sel=selector(chosen))  # type: ignore[call-arg]


def in_cells(probed: int, chosen: NDArray[np.bool_] | None) -> faiss.SearchParameters:
    """For an inverted file: so many of its cells are looked into."""
    sel = None if chosen is None else selector(chosen)
    return faiss.SearchParametersIVF(nprobe=probed, sel=sel)  # type: ignore[call-arg]
