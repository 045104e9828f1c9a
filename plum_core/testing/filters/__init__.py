"""What stands between a generator's answer and a suite that may make labels: see ``suites``."""

from plum_core.testing.filters.config import REASONS, Candidate, FilterConfig
from plum_core.testing.filters.suites import filter_candidates

__all__ = ["REASONS", "Candidate", "FilterConfig", "filter_candidates"]
