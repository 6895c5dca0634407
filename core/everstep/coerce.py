"""Values and their stored form, both ways; what the rest of Everstep imports.

`plain` (module plain) goes from Python to JSON and refuses what it cannot keep exactly. `coerce` (module shapes) goes
back by an annotation. `signature_of` (module signature) does both for a call. For every storable x of a type T whose
equality is by value, `coerce(plain(x), T) == x`.
"""

from __future__ import annotations

from .plain import plain
from .scalars import Coercer
from .shapes import coerce, coercer
from .signature import Signature, signature_of

__all__ = ["Coercer", "Signature", "coerce", "coercer", "plain", "signature_of"]
