"""Files for running Ingot elsewhere: an image, a manifest, a dashboard."""
