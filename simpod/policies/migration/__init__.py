"""Migration, one policy a file: which running requests move to another rank."""
