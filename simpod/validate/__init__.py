"""The cost model against measurements: reading them, fitting constants, telling the error."""
