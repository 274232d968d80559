"""Tries: answer NaN, which compares as neither worse nor better.
Against: the score
Ends: refused nan
With: bigram
"""

class Nan(Model):
    def forward(self, tokens):
        return self.table(tokens) * float("nan")


evaluate_bpb(train(Nan()), Tokenizer.from_directory())
