"""Lenses: they look at what is trained and never change it. One file for each question."""
