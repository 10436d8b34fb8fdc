"""The simulated jobs of `milepost serve --demo`."""
