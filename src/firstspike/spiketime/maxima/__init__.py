"""The largest value that a membrane reaches, and its gradient: for silent neurons, and readouts without a threshold."""
