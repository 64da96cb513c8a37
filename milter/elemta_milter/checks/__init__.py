"""Checks: one class a file; being in this folder is all it takes to be found."""
