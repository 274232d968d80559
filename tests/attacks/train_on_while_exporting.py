"""Tries: say that training has ended, train on, and submit the better weights.
Against: the clock
Level: any
Ends: refused refused
With: bigram
"""

model = train(Model())


def say_trained():
    digests = {name: export.tensor_digest(tensor) for name, tensor in export.trained(model, prepare._declared).items()}
    prepare._server.ask(op="trained", digests=digests)


say_trained()
with torch.no_grad():
    model.table.weight += 0.01
say_trained()  # a second word does not count
export.submit(export.trained(model, prepare._declared), prepare.Path("submission.safetensors"))
print(prepare._server.ask(op="submit"))
