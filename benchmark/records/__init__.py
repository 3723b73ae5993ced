"""Results: their schema, the folder that holds them, and which of them count."""
