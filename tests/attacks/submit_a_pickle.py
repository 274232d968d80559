"""Tries: submit a pickle that runs a command when it is loaded.
Against: the evaluator
Ends: refused refused
With: protocol, graph
"""

import pickle


class Bomb:
    def __reduce__(self):
        return (os.system, ("touch @SECRET@.pwned",))


submit(pickle.dumps(Bomb()))
