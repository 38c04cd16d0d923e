"""One training: its config, its parts, the loop, and the folder it leaves."""
