"""config.json as settings that are checked: what all families write alike, and what comes of it."""
