"""Tries: drop out at random inside fused attention, which is random and counts batches.
Against: causality
Ends: refused refused
With: bigram
"""


class Random(Model):
    def forward(self, tokens):
        x = self.table(tokens).unsqueeze(1)
        return F.scaled_dot_product_attention(x, x, x, is_causal=True, dropout_p=0.5).squeeze(1)


evaluate_bpb(train(Random()), Tokenizer.from_directory())
