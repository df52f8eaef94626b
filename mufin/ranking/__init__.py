"""From candidate labels to a final order: classifier scores, mixes, title ridge, tie-breaking."""
