"""Modules I, III and IV: losses, mining, optimisers, the loop and its checkpoints."""
