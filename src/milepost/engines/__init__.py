"""Hand the running of jobs to an engine that a team already has."""
