"""One address before several servers: requests go where their beginning is cached."""
