"""Data sets: reading, checking, finding, and the stand-in."""
