"""The sample jobs of `milepost serve --demo`."""
