"""The library: everything that the stage scripts, the study and the command line share."""
