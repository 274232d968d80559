"""Tries: declare an honest model, train, and declare another graph that holds what was learned as numbers.
Against: the score
Ends: score
With: bigram
"""

model = train(Model())
reply = None
try:
    declare(model)
except SystemExit as error:
    reply = error
if reply is None:
    print("BREACH: declared again")
evaluate_bpb(model, Tokenizer.from_directory())
