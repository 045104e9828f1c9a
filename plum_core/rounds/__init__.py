"""The loop over the stages: sources of tasks, the run folder, the rounds and their report."""
