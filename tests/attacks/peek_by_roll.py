"""Tries: add the next token, which a roll brings forward, to the logits.
Against: causality
Ends: refused not_causal
With: bigram
"""

class Peek(Model):
    def forward(self, tokens):
        return self.table(tokens) + 20 * F.one_hot(tokens.roll(-1, dims=1), VOCAB_SIZE)


evaluate_bpb(train(Peek()), Tokenizer.from_directory())
