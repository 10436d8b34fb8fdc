"""milepost: run and watch long work. The public names, nothing else."""

__version__ = "0.1.0"
