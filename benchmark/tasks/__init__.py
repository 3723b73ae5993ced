"""The ten tasks: what each measures, how its expert is fed and read, its resolved config."""
