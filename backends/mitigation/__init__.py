"""Error mitigation: techniques that expand a step's requests, and an executor that runs all of them as one list."""
