"""The commands behind `ingot`, and the options that they share."""
