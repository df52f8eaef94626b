"""From candidate labels to a final order: scores, mixes, title ridge, votes, tie-breaking."""
