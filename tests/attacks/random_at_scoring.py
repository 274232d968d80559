"""Tries: drop out at random when it is scored.
Against: causality
Ends: refused refused
With: bigram
"""

class Random(Model):
    def forward(self, tokens):
        return F.dropout(self.table(tokens), 0.5, training=True)


evaluate_bpb(train(Random()), Tokenizer.from_directory())
