"""Tries: answer over half the vocabulary, so that there is less to be wrong about.
Against: the score
Ends: refused refused
With: bigram
"""

class Half(Model):
    def forward(self, tokens):
        return self.table(tokens)[..., : VOCAB_SIZE // 2]


evaluate_bpb(train(Half()), Tokenizer.from_directory())
