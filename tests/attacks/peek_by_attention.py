"""Tries: attend without a causal mask.
Against: causality
Ends: refused not_causal
With: bigram
"""

class Peek(Model):
    def forward(self, tokens):
        x = F.one_hot(tokens, VOCAB_SIZE).float().unsqueeze(1)
        seen = F.scaled_dot_product_attention(
            x,
            x,
            x,
            attn_mask=torch.ones(MAX_SEQ_LEN, MAX_SEQ_LEN, dtype=torch.bool)
            .triu(1)
            .tril(1)
            .logical_or(torch.eye(MAX_SEQ_LEN, dtype=torch.bool)),
        )
        return self.table(tokens) + 20 * seen.squeeze(1)


evaluate_bpb(train(Peek()), Tokenizer.from_directory())
