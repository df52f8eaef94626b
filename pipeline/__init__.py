"""MUFIN, multi-modal extreme classification, in nine stages: docs/architecture.md."""
