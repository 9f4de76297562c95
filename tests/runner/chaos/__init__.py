"""Runs on a stand-in for IBM's service, under random kills, delays and error codes."""
