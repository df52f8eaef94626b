"""Rivals of Table 3: methods of fashion compatibility, each trained on outfits.

One file per method, with a network and `fit(items, train, valid, seed, budget) -> Scorer`. All of
them have the picture encoder of `backbone.py`, the title features of `items.py` and the `Budget`
of `training.py`. `table.py` names the rows as in the paper.
"""
