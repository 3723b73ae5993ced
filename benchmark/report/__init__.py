"""From results to a page and to figures: no torch, no network."""
