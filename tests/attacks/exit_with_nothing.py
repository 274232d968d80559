"""Tries: leave at once with exit status 0.
Ends: crash error
"""

raise SystemExit(0)
