"""Folders and files of weights: found, checked, read, written in a faster layout."""
