"""From any API's request to what the engine is asked, and what all their answers count."""
