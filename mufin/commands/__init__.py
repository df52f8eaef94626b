"""What the commands of `mufin` do, one file per command."""
