"""The runtime of kernels: arguments, threads, memory, and a place for compiled code."""
