"""``python -m firstspike`` is the command."""

from firstspike.cli import main

main()
