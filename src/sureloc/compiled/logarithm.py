"""A logarithm that the compiler can take of several numbers at once (Numba).

The C library's takes one number at a time, and the log-likelihood of a patch needs one for every
pixel. x = 2^e m with m in [sqrt(1/2), sqrt(2)); ln m = 2 artanh(s), s = (m - 1) / (m + 1), by its
series, |s| <= 0.172.
"""

from __future__ import annotations

import math
from typing import Any

import numba
from llvmlite import ir
from numba import extending

from sureloc.compiled.jit import inner

LN_2 = 0.6931471805599453
ROOT_OF_2 = 1.4142135623730951
_MANTISSA, _ONE = (1 << 52) - 1, 0x3FF0000000000000
_SHIFT_BITS, _SHIFT = 0x4330000000000000, float((1 << 52) + 1023)


def _parts(typing_context: Any, x: Any) -> Any:  # pragma: no cover - run by the compiler
    """Give the exponent and the mantissa, in [1, 2), of a positive normal number, as floats."""
    del typing_context
    double = numba.types.float64
    if x != double:
        return None
    pair: Any = numba.types.UniTuple(double, 2)  # type: ignore[no-untyped-call]
    return pair(double), _generate_parts


def _generate_parts(
    context: Any, builder: Any, signature: Any, arguments: Any
) -> Any:  # pragma: no cover - run by the compiler
    integer, double = ir.IntType(64), ir.DoubleType()
    bits = builder.bitcast(arguments[0], integer)
    mantissa = builder.or_(builder.and_(bits, integer(_MANTISSA)), integer(_ONE))
    # An integer below 2^52 in a float's mantissa is that float less 2^52: no conversion, which AVX2
    # has none of.
    shifted = builder.or_(builder.lshr(bits, integer(52)), integer(_SHIFT_BITS))
    exponent = builder.fsub(builder.bitcast(shifted, double), double(_SHIFT))
    parts = (exponent, builder.bitcast(mantissa, double))
    return context.make_tuple(builder, signature.return_type, parts)


def _interpreted_parts(x: float) -> tuple[float, float]:
    """Do the same where Numba is switched off."""
    mantissa, exponent = math.frexp(x)
    return exponent - 1.0, 2.0 * mantissa


_config: Any = numba.config
_exponent_and_mantissa: Any = (
    _interpreted_parts if _config.DISABLE_JIT else extending.intrinsic(_parts)
)


@inner
def quick_log(x: float) -> float:
    """Give ln x of a positive normal number, within 3e-16 of 1 + |ln x|; others give nonsense."""
    exponent, mantissa = _exponent_and_mantissa(x)
    large = mantissa > ROOT_OF_2
    mantissa = 0.5 * mantissa if large else mantissa
    exponent = exponent + 1.0 if large else exponent
    s = (mantissa - 1.0) / (mantissa + 1.0)
    z = s * s
    series = 1.0 / 15.0 + z * (1.0 / 17.0)
    series = 1.0 / 11.0 + z * (1.0 / 13.0 + z * series)
    series = 1.0 / 7.0 + z * (1.0 / 9.0 + z * series)
    series = 1.0 / 3.0 + z * (1.0 / 5.0 + z * series)
    return float(exponent * LN_2 + 2.0 * s * (1.0 + z * series))
