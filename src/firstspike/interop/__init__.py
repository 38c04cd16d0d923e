"""Reading from and writing for other programs. Their files are read as data. Nothing in them is executed."""
