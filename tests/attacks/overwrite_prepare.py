"""Tries: change prepare.py in the run's folder for this run and the next.
Against: the score
Ends: crash error
"""

import os

os.unlink("prepare.py") if os.path.exists("prepare.py") else None
open("prepare.py", "w").write("print('pwned')\n")
open("sitecustomize.py", "w").write("print('pwned')\n")
