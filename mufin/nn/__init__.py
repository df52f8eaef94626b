"""The network: encoders, attention, bags and vectors, classifiers. Knows nothing of files (but encoders) and params."""
