"""A batch of density matrices carried forwards: inputs anywhere, weights per row, joint probabilities."""
