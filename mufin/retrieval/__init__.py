"""Search for the nearest labels: exact, HNSW, and the augmented rows that are searched."""
