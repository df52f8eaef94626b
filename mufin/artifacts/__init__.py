"""The files between stages: schemas, readers, writers, and publication by rename."""
