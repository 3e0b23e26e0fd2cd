"""WS /v1/realtime: speech that is heard while it is spoken."""
