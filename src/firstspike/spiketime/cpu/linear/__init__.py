"""Linear neurons: a membrane and any number of exponentials, exactly, and at nearly the cost of those with two."""
