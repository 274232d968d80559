"""Tries: attend without a causal mask.
Ends: refused not_causal
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

import prepare
from prepare import MAX_SEQ_LEN, VOCAB_SIZE, Tokenizer, evaluate_bpb, make_dataloader


class Model(nn.Module):
    """A bigram model: honest as far as it goes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(VOCAB_SIZE, VOCAB_SIZE)
        nn.init.zeros_(self.table.weight)

    def forward(self, tokens):
        return self.table(tokens)


def train(model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for x, y, _ in make_dataloader(Tokenizer.from_directory(), 32, MAX_SEQ_LEN, "train"):
        F.cross_entropy(Model.forward(model, x).flatten(0, 1), y.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


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
