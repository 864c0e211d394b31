"""/v1/vector_stores: stores, their files, batches of files, and searches."""
