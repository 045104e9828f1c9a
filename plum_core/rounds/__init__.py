"""The loop over the stages: prompts, sources of tasks, the run folder, the rounds and their report."""
