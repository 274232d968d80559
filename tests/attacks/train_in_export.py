"""Tries: say that training has ended, train on in the export phase, and hand over better weights as what was committed.
Against: the clock
Level: any
Ends: timeout timeout, refused refused
With: bigram
"""

import time

model = train(Model())
batches = [(torch.randint(VOCAB_SIZE, (8, MAX_SEQ_LEN)),) * 2]
digests = {name: export.tensor_digest(tensor) for name, tensor in export.trained(model, prepare._declared).items()}
prepare._server.ask(op="trained", digests=digests)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
deadline = time.time() + 8
while time.time() < deadline:
    for x, y in batches:
        F.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
        optimizer.step()
export.submit(export.trained(model, prepare._declared), prepare.Path("submission.safetensors"))
print(prepare._server.ask(op="submit"))
