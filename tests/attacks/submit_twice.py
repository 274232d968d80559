"""Tries: submit again after a look at the score.
Against: the score
Ends: score
With: bigram
"""

model = train(Model())
first = evaluate_bpb(model, Tokenizer.from_directory())
print("first", first)
evaluate_bpb(model, Tokenizer.from_directory())
print("BREACH: a second score")
