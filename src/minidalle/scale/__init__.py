"""More than one device, and what it costs."""
