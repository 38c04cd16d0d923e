"""Reading from and writing for other programs. Their files are read as data; nothing in them is executed."""
