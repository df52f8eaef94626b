"""Relations from ratings: a seeded catalog with ratings, and what a model learns from them."""
