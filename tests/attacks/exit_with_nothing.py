"""Tries: leave at once with exit status 0.
Against: the score
Ends: crash error
"""

raise SystemExit(0)
