"""A logarithm that the compiler can take of several numbers at once (Numba).

The C library's takes one number at a time, and the log-likelihood of a patch needs one for every
pixel. x = 2^e m with m in [sqrt(1/2), sqrt(2)); ln m = 2 artanh(s), s = (m - 1) / (m + 1), by its
series, |s| <= 0.172. In single precision, of which a processor takes twice as many at once.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import extending

from sureloc.compiled.jit import inner

LN_2, ROOT_OF_2 = np.float32(0.6931471805599453), np.float32(1.4142135623730951)
HALF, ONE, TWO = np.float32(0.5), np.float32(1.0), np.float32(2.0)
THIRD, FIFTH, SEVENTH, NINTH = (np.float32(1.0 / n) for n in (3, 5, 7, 9))
_MANTISSA, _ONE_BITS, _MANTISSA_BITS, _BIAS = (1 << 23) - 1, 0x3F800000, 23, 127


def _parts(typing_context: Any, x: Any) -> Any:  # pragma: no cover - run by the compiler
    """Give the exponent and the mantissa, in [1, 2), of a positive normal number, as floats."""
    del typing_context
    single = numba.types.float32
    if x != single:
        return None
    pair: Any = numba.types.UniTuple(single, 2)  # type: ignore[no-untyped-call]
    return pair(single), _generate_parts


def _generate_parts(
    context: Any, builder: Any, signature: Any, arguments: Any
) -> Any:  # pragma: no cover - run by the compiler
    integer, single = ir.IntType(32), ir.FloatType()
    bits = builder.bitcast(arguments[0], integer)
    mantissa = builder.or_(builder.and_(bits, integer(_MANTISSA)), integer(_ONE_BITS))
    exponent = builder.sub(builder.lshr(bits, integer(_MANTISSA_BITS)), integer(_BIAS))
    parts = (builder.sitofp(exponent, single), builder.bitcast(mantissa, single))
    return context.make_tuple(builder, signature.return_type, parts)


def _interpreted_parts(x: np.float32) -> tuple[np.float32, np.float32]:
    """Do the same where Numba is switched off."""
    mantissa, exponent = math.frexp(x)
    return np.float32(exponent - 1.0), np.float32(2.0 * mantissa)


_config: Any = numba.config
_exponent_and_mantissa: Any = (
    _interpreted_parts if _config.DISABLE_JIT else extending.intrinsic(_parts)
)


@inner
def quick_log(x: np.float32) -> np.float32:
    """Give ln x of a positive normal number, within 2.4e-7 of |ln x|; others give nonsense."""
    exponent, mantissa = _exponent_and_mantissa(x)
    large = mantissa > ROOT_OF_2
    mantissa = HALF * mantissa if large else mantissa
    exponent = exponent + ONE if large else exponent
    s = (mantissa - ONE) / (mantissa + ONE)
    z = s * s
    series = THIRD + z * (FIFTH + z * (SEVENTH + z * NINTH))
    logarithm: np.float32 = exponent * LN_2 + TWO * s * (ONE + z * series)
    return logarithm
