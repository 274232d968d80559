"""Tries: submit an archive that unpacks to gigabytes.
Against: the evaluator
Ends: refused refused
With: protocol, graph
"""

import io
import zipfile

buffer = io.BytesIO()
with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as pack:
    for number in range(5):
        pack.writestr(str(number), bytes(50_000_000))
submit(buffer.getvalue())
