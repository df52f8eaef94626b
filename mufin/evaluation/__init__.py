"""The evaluator that computes all metrics, and the methods that every run reports."""
