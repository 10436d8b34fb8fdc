"""A deterministic simulation of workers, callers and a store under faults: one thread, one seed. See docs/simulation.md."""
