"""Who does it and when: the command line, the configuration, the peers and their rounds."""
