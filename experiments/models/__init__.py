"""Models: what a node trains and scores with."""
