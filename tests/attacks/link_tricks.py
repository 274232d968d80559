"""Tries: put links to outside in the place of folders and files that the supervisor touches.
Against: the host
Ends: crash error
Needs: landlock
"""

import os
import shutil

shutil.rmtree("tmp")
os.symlink(os.path.dirname("@SECRET@"), "tmp")
for name in ("submission.safetensors",):
    try:
        os.link("@SECRET@", name)
        print("linked")
    except OSError as error:
        print(error)
