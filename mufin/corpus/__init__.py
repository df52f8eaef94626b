"""Products in: sources, fetching, cleaning, splits, pixels, tokens, batches, the sample."""
