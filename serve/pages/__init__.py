"""The pages that a browser sees, as they are: no build step, nothing from elsewhere."""
