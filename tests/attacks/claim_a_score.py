"""Tries: speak the control protocol by hand and claim a score without a model.
Against: the score
Ends: crash error
With: protocol
"""

ask(op="data")
ask(op="trained", digests={}, score=0.01)
print(ask(op="submit", score=0.01, result={"score": 0.01}))
print(ask(op="score", score=0.01))
print(ask(op="ended", outcome="scored", score=0.01))
