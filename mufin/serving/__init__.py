"""Answers of a trained recommender, for products in the catalog and for new ones."""
