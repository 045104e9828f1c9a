"""pytest-benchmark suites: each case is held to its definition, then timed."""
