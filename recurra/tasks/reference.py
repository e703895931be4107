"""What counting reaches: lines to hold a language model against, from the same bytes and nothing learned.

Everything is sorting and searching of whole numbers, so a corpus of ten megabytes takes seconds.
"""

import concurrent.futures
import lzma

import numpy as np

ORDERS = (0, 1, 2, 3)


def lines(train: bytes, test: bytes) -> dict[str, float]:
    """Held-out bits per byte of byte models of order 0 to 3, and of xz.

    A model of order k gives each byte its frequency after the k bytes before it, smoothed by Witten and Bell (1991,
    https://doi.org/10.1109/18.87000): with n(h) bytes seen after history h, u(h) different ones among them, and h'
    the history without its oldest byte,

        p(c | h) = (n(h c) + u(h) p(c | h')) / (n(h) + u(h)),    p(c) of order -1 = 1/256

    "xz" is what the test bytes add to the training bytes when xz packs them together:
    8 (|xz(train test)| - |xz(train)|) / |test|, at its default effort with a dictionary that holds both.

    Args:
        train: what is counted. Up to 2**29 bytes.
        test: what is measured; at least one byte.

    Returns:
        {"order-0": ..., "order-1": ..., "order-2": ..., "order-3": ..., "xz": ...}
    """
    if not test:
        raise ValueError("there are no test bytes: nothing can be measured")
    seen, asked = np.frombuffer(train, np.uint8), np.frombuffer(test, np.uint8)
    probability, result = np.full(len(asked), 1 / 256), {}
    for order in ORDERS:
        probability = _refined(seen, asked, order, probability)
        result[f"order-{order}"] = float(-np.log2(probability).mean())
    return result | {"xz": _xz(train, test)}


def _refined(seen: np.ndarray, asked: np.ndarray, order: int, lower: np.ndarray) -> np.ndarray:
    """The probability of every asked byte after `order` bytes, from that after one fewer.

    Bytes with less before them than the order keep the lower one.
    """
    if len(seen) <= order or len(asked) <= order:
        return lower
    grams, counts = np.unique(_grams(seen, order), return_counts=True)
    # grams of one history lie side by side
    begins = np.flatnonzero(np.diff(grams >> 8, prepend=-1))
    histories = grams[begins] >> 8
    different = np.diff(begins, append=len(grams))
    total = np.add.reduceat(counts, begins)
    wanted = _grams(asked, order)
    n = _looked_up(grams, counts, wanted)
    u, all_of = (_looked_up(histories, x, wanted >> 8) for x in (different, total))
    backed = lower[order:]
    # a history never seen tells nothing: 0 / 0 is the lower one
    mixed = np.where(all_of > 0, (n + u * backed) / np.maximum(all_of + u, 1), backed)
    return np.concatenate([lower[:order], mixed])


def _grams(data: np.ndarray, order: int) -> np.ndarray:
    """Every run of `order` + 1 bytes as one number, the last byte lowest."""
    number = np.zeros(len(data) - order, np.int64)
    for i in range(order + 1):
        number = number << 8 | data[i : len(data) - order + i]
    return number


def _looked_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The values of the wanted keys (sorted), 0 where there is none."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)


def _xz(train: bytes, test: bytes) -> float:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": max(2**16, len(train) + len(test))}]

    def size(data: bytes) -> int:
        return len(lzma.compress(data, lzma.FORMAT_RAW, filters=filters))

    # packing lets other threads run
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        together, alone = pool.map(size, (train + test, train))
    return 8 * (together - alone) / len(test)
