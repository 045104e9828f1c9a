"""PLUM's method, one room an idea: see the README's map."""
