"""Two models on the items that both were scored on: what differs, and is it more than luck."""
