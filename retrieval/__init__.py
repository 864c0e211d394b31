"""Document retrieval and memory: chunking and the projections of a store. Imports nothing of the frontend."""
