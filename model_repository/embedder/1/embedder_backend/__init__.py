"""The Triton side of the embedder: texts or token ids in, vectors out. Knows no HTTP.

model.py (Triton's calls) -> wire (tensors) -> embedder.Embedder (sentence-transformers)
"""
