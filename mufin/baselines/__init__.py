"""Rows that keep everyone honest."""
