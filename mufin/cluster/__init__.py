"""Parts of a stage or a command on several machines: Ray Data, and a store that all of them see."""
