"""One run: an upstream, a task, a learning rate or several, to a record of each."""
