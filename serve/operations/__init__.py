"""What an operator sees and does: health, metrics, logs, traces, the admin page."""
