"""What a job is: pure values and rules. Standard library only; no I/O; never reads a clock."""
