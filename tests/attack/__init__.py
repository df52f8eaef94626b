"""Attacks on the pipeline: kills, hostile answers and pictures, corrupt artifacts, settings."""
