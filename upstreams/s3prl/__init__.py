"""All that knows s3prl's insides and its age: shims, patches, and three accelerations."""
