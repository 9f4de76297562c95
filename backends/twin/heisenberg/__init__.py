"""Observables carried backwards: the way where inputs come before the first entangling gate."""
