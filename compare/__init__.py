"""The study: MUFIN, its variants and the baselines on one split, in one table and one report.

`make compare` runs it. `variants.yaml` says what is compared, `dvc.yaml` has a stage per row and
seed. The folder is a DVC project of its own, so that `dvc` in the main folder knows the ten stages
alone.
"""
