"""What several baselines use: their task, popular labels, TF-IDF, neighbours, shortlists."""
