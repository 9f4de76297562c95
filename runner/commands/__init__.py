"""The commands of `qrun`, a file a group; runner/cli.py puts them together."""
