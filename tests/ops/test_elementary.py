"""Functions of sixteen numbers at once, which kernels written by hand use, against torch's in a wider type."""

import pytest
import torch

from recurra.ops import native

pytestmark = pytest.mark.skipif(native.available() is not None, reason=str(native.available()))
FUNCTIONS = {"exps": torch.exp, "tanh16": torch.tanh, "sigmoid16": torch.sigmoid}
SOURCE = """
#include "common.h"
typedef struct { const REAL *x; REAL *y; I n, which; } Record;
I vectors_forward(const Record *z, I fields) {
    CHECK(z, fields)
    for (I i = 0; i < z->n; i += W) {
        const vec x = get(z->x + i);
        put(z->y + i, z->which == 0 ? exps(x) : z->which == 1 ? tanh16(x) : sigmoid16(x));
    }
    return 0;
}
"""


def _mapped(name, x):
    native.write("vectors", SOURCE)
    y = torch.empty_like(x)
    native.call("vectors", "forward", x, y, len(x), list(FUNCTIONS).index(name))
    return y


@pytest.mark.parametrize("name", FUNCTIONS)
def test_vectors_are_exact_to_a_few_roundings(name):
    """At most 2.5 units in the last place, where a sigmoid or an exponential is no subnormal number."""
    x = torch.cat([torch.linspace(-86, 88, 1 << 16), torch.logspace(-30, 1, 1 << 15), -torch.logspace(-30, 1, 1 << 15)])
    truth = FUNCTIONS[name](x.double())
    _, exponent = torch.frexp(truth)
    unit = torch.ldexp(torch.ones_like(truth), exponent - 24)
    assert ((_mapped(name, x).double() - truth).abs() / unit).max() < 2.5


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_ends_of_vectors(name, kind):
    x = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, 1000.0, -1000.0, *[1.0] * 9], dtype=kind)
    y, truth = _mapped(name, x), FUNCTIONS[name](x)
    torch.testing.assert_close(y, truth, equal_nan=True)
    assert torch.equal(y.signbit()[:4], truth.signbit()[:4])
