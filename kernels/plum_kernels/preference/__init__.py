"""Preference objectives from ragged per-token log-probs: ``preference_loss``, its definition and its kernel."""
