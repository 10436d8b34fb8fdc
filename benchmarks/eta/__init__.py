"""Are the ranges of finish times true? Recorded runs, and their replay through the code that a pulse calls."""
