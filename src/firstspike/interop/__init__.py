"""From and to other programs: files of theirs are read as data, and nothing in them is ever executed."""
