"""Two models on the items that both were scored on: what differs, and whether that is more than luck."""
