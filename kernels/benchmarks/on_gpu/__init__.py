"""The sections of ``gpu.py``: checks, tuning, tables and the report."""
