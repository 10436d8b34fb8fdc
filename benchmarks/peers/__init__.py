"""Those who do the works: one module each."""
