"""What is learned: data sets, models, and one file an experiment."""
