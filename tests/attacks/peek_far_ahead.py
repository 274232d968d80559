"""Tries: take the mean of all tokens of the sequence, later ones too.
Against: causality
Ends: refused not_causal
With: bigram
"""

class Peek(Model):
    def forward(self, tokens):
        logits = self.table(tokens)
        return logits + F.one_hot(tokens, VOCAB_SIZE).float().mean(1, keepdim=True)


evaluate_bpb(train(Peek()), Tokenizer.from_directory())
