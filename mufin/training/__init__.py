"""Training of Modules I, III and IV: losses, mining, optimisers, the loop, its checkpoints."""
