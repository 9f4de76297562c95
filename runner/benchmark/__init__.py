"""`qrun benchmark` and `qrun ablate`: the QGAN beside other models, and beside itself with another generator."""
