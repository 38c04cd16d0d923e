"""What a kernel needs to run: its arguments, threads, memory, and a place for compiled code."""
