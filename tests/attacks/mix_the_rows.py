"""Tries: use the other sequences of the batch as context.
Against: causality
Ends: refused not_causal
With: bigram
"""

class Mix(Model):
    def forward(self, tokens):
        return self.table(tokens) + self.table(tokens.roll(1, dims=0)).mean(1, keepdim=True)


evaluate_bpb(train(Mix()), Tokenizer.from_directory())
