"""Tries: open the handed-over descriptor again, for writing, through /proc.
Against: the host
Ends: crash error
Needs: landlock
With: protocol, graph
"""

declare(HONEST)
_, (data,) = ask(op="data")
for attempt in (
    lambda: os.fchmod(data, 0o666),
    lambda: os.ftruncate(data, 0),
    lambda: os.write(os.open(f"/proc/self/fd/{data}", os.O_RDWR), b"pwned"),
):
    try:
        attempt()
        print("done")
    except OSError as error:
        print(error)
