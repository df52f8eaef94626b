"""Baseline methods to compare MUFIN with: one file per method, named like its row in the table.

Each file has a function `baseline(task, seed) -> predict`: it trains, and `predict(split)` ranks
labels. The code that several of them use is in `shared/`.
"""
