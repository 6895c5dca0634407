"""Values to text and back: the one path by which anything of a user reaches a store.

Arguments, results, errors, inbox values and schedule arguments all pass through here, so that an `Encryptor` sees
every one of them and a limit holds for every one of them. The text is compact JSON. Headers say what else was done
to it, and a payload without headers is plain JSON:

    everstep:key                                   encrypted under this key id; the text is base64
    everstep:ref, everstep:digest, everstep:size   the text is elsewhere, in `Blobs`

Text that is not valid Unicode (a lone surrogate, which SQLite and most databases refuse) is stored escaped.
"""

from __future__ import annotations

import json
import json.encoder
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .errors import DecodeError, NotSerializable, PayloadTooLarge, PlatformError
from .nesting import DEEPEST, NestedTooDeeply, check_nesting
from .plain import plain
from .promise import NO_TAGS, Payload, make

if TYPE_CHECKING:
    from .blobs import Blobs
    from .crypto import Encryptor

__all__ = ["Codec", "Payload"]

LIMIT = 256 * 1024
HARD_LIMIT = 64 * 1024 * 1024

_WIDEST = 4
"""Bytes of a character of UTF-8, at most: what is small even so need not be measured."""

KEY = "everstep:key"
REF = "everstep:ref"
DIGEST = "everstep:digest"
SIZE = "everstep:size"
_SEALED = "everstep:sealed "

_options: dict[str, Any] = {"allow_nan": False, "check_circular": False, "separators": (",", ":")}
_escaped = json.JSONEncoder(ensure_ascii=True, **_options).encode
_sorted = json.JSONEncoder(ensure_ascii=True, sort_keys=True, **_options).encode


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_decoder: Any = json.JSONDecoder(parse_constant=_refuse)
_parse: Callable[[str], Any] = _decoder.decode
_scan: Callable[[str, int], tuple[Any, int]] = _decoder.scan_once


def _compact() -> Callable[[Any], str]:
    """JSON text by the interpreter's own encoder, made once: `JSONEncoder.encode` makes one anew at every call."""
    whole = json.JSONEncoder(ensure_ascii=False, **_options)
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return whole.encode
    quote: Any = json.encoder.encode_basestring
    chunks = make(None, whole.default, quote, None, ":", ",", False, False, False)
    join = "".join

    def compact(value: Any) -> str:
        kind = type(value)
        return quote(value) if kind is str else join(chunks(value, 0))

    return compact


_dumps = _compact()


class Codec:
    """How values are stored.

    Args:
        encryptor: encrypts every stored value; nothing is stored in the clear but ids, names, tags and times.
        blobs: where payloads above `limit` go.
        limit: bytes of stored text that a record may carry itself.
        hard_limit: bytes that a payload may have at all; without `blobs` it is `limit`.
    """

    def __init__(
        self,
        *,
        encryptor: Encryptor | None = None,
        blobs: Blobs | None = None,
        limit: int = LIMIT,
        hard_limit: int = HARD_LIMIT,
    ) -> None:
        self.encryptor = encryptor
        self.blobs = blobs
        self.limit = limit
        self.hard_limit = max(hard_limit, limit) if blobs is not None else limit

    def encode(self, value: Any, where: str = "value") -> Payload:
        """A value in its stored form.

        Raises:
            NotSerializable: it has none; the message names `where`, the path inside the value and the type.
            PayloadTooLarge: it exceeds what can be stored; the message names `where`, its size and the limit.
        """
        return self.encode_plain(plain(value, where), where)

    def encode_plain(self, flat: Any, where: str = "value") -> Payload:
        """`encode`, of a value that is JSON-plain already. Raises as `encode`."""
        text = _text(flat, where)
        if self.encryptor is None and len(text) * _WIDEST <= self.hard_limit:
            return make(Payload, (text, NO_TAGS))
        payload = self._encrypt(text)
        data = payload.data or ""
        size = len(data) if data.isascii() else len(data.encode())
        if size > self.hard_limit:
            raise _too_large(where, size, self.hard_limit)
        return payload

    def _encrypt(self, text: str) -> Payload:
        if self.encryptor is None:
            return Payload(text)
        from binascii import b2a_base64

        key, sealed = self.encryptor.encrypt(text.encode())
        return Payload(b2a_base64(sealed, newline=False).decode("ascii"), {KEY: key})

    def seal(self, text: str) -> str:
        """A note for people (why a run halted, a step failed), which may quote values: encrypted where those are."""
        sealed = self._encrypt(text)
        return text if not sealed.headers else f"{_SEALED}{sealed.headers[KEY]} {sealed.data}"

    def unseal(self, note: str) -> str:
        """What `seal` was given; where it cannot be read here, that it cannot."""
        if not note.startswith(_SEALED):
            return note
        key, _, data = note.removeprefix(_SEALED).partition(" ")
        try:
            return self._decrypt(key, data)
        except (DecodeError, PlatformError) as error:
            return f"(encrypted: {error})"

    def decode(self, payload: Payload) -> Any:
        """The JSON-plain value of a payload; None where there is no text.

        Raises:
            DecodeError: the key is unknown or wrong, the text is damaged, or it is elsewhere (`internalize` first).
            PlatformError: of the encryptor, whose key service is in trouble.
        """
        data, headers = payload
        if headers:
            if REF in headers:
                raise DecodeError(f"the value is stored by reference ({headers[REF]!r}) and was not fetched")
            if KEY in headers:
                return _load(self._decrypt(headers[KEY], data))
        if not data:  # a client in TypeScript says `undefined` by no text at all
            return None
        return _load(data)

    def _decrypt(self, key: str, data: str | None) -> str:
        if self.encryptor is None:
            raise DecodeError(f"the value is encrypted under the key {key!r}, and no encryptor is configured")
        from binascii import a2b_base64

        try:
            return self.encryptor.decrypt(key, a2b_base64(data or "", strict_mode=True)).decode()
        except PlatformError:
            raise  # the key service says that it is in trouble, as a store may be: the run comes again, unharmed
        except Exception as error:
            # Whatever a key service or a cipher raises: the value is not readable now, and nobody's fault but ours.
            raise DecodeError(f"the value cannot be decrypted under the key {key!r}: {type(error).__name__}") from error

    def copy(self, value: Any, where: str = "value") -> Any:
        """A value as it would come back: plain, and shared with nobody. Raises NotSerializable."""
        return _load(_text(plain(value, where), where))

    def encode_error(self, exc: BaseException) -> Payload:
        """An exception in its stored form. It always has one: what a small limit leaves no room for is cut."""
        from .failures import ROOM, describe

        for room in (ROOM, self.hard_limit // 4, self.hard_limit // 16, 0):
            try:
                return self.encode(describe(exc, room), "error")
            except PayloadTooLarge:
                continue
        return self._encrypt(_dumps({"type": describe(exc, 0)["type"], "module": "", "message": "", "args": []}))

    async def externalize(self, payload: Payload, id: str, part: str) -> Payload:
        """Move a payload above `limit` into the blobs; any other is returned as it is.

        The place holds a digest of the contents, so that a late writer of the same id and part cannot change what an
        earlier one recorded (rule F2), and writing it twice is harmless.

        Args:
            payload: from `encode`.
            id: of the promise it belongs to.
            part: `param`, `value` or whatever else tells the payloads of one id apart.

        Raises:
            PayloadTooLarge: it is above `limit` and there are no blobs.
        """
        data = payload.data
        if data is None or len(data) * 3 <= self.limit:
            return payload
        raw = data.encode()
        if len(raw) <= self.limit:
            return payload
        if self.blobs is None:
            raise _too_large(f"{part} of {id}", len(raw), self.limit)
        import hashlib

        digest = hashlib.sha256(raw).hexdigest()
        place = f"{id}/{part}/{digest[:32]}"
        await self.blobs.put(place, raw)
        return Payload(None, {**payload.headers, REF: place, DIGEST: digest, SIZE: str(len(raw))})

    async def internalize(self, payload: Payload) -> Payload:
        """Fetch a payload that is stored by reference; any other is returned as it is.

        Raises:
            DecodeError: there are no blobs, the blob is gone, or it is not the one that was stored.
        """
        place = payload.headers.get(REF)
        if place is None:
            return payload
        if self.blobs is None:
            raise DecodeError(f"the value is stored by reference ({place!r}), and no blobs are configured")
        try:
            raw = await self.blobs.get(place)
        except LookupError as error:
            raise DecodeError(f"the value stored by reference is gone: {place!r}") from error
        import hashlib

        if hashlib.sha256(raw).hexdigest() != payload.headers.get(DIGEST):
            raise DecodeError(f"the value stored by reference is damaged: {place!r}")
        own = {name: text for name, text in payload.headers.items() if name not in (REF, DIGEST, SIZE)}
        return Payload(raw.decode(), own)

    async def discard(self, payload: Payload, root: str) -> None:
        """Delete what a payload refers to, when the tree of a root is deleted (rule T1).

        What is another's stays: a client of the protocol writes into its payloads' headers whatever it likes.
        """
        place = payload.headers.get(REF, "")
        if self.blobs is not None and f"{place.rsplit('/', 2)[0]}.".startswith(f"{root}."):
            await self.blobs.delete(place)

    def digest(self, fn: str, args: Any, kwargs: Any) -> str:
        """A keyed digest of a piece of work: equal for equal work, whatever it is encrypted under (rule I6).

        The key is the encryptor's `digest_key` where it has one. Without, it is empty, and someone who reads the
        store can tell whether a guess at the arguments is right.

        Returns:
            22 characters of base64url, of HMAC-SHA256.

        Raises:
            NotSerializable: an argument cannot be stored.
        """
        import hashlib
        import hmac
        from base64 import urlsafe_b64encode

        work = [fn, plain(list(args), "args"), plain(dict(kwargs), "kwargs")]
        key: bytes = getattr(self.encryptor, "digest_key", b"")
        sealed = hmac.digest(key, _canonical(work).encode("ascii"), hashlib.sha256)
        return urlsafe_b64encode(sealed[:16]).decode("ascii")[:22]


def _too_large(where: str, size: int, limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"{where} has {size} bytes, and at most {limit} can be stored")


def _text(flat: Any, where: str) -> str:
    try:
        text = str(flat) if type(flat) is int else _dumps(flat)
    except ValueError as error:
        raise NotSerializable(f"{where}: {error}") from None
    except RecursionError:
        raise NotSerializable(f"{where}: nested too deeply for the stack it was met on") from None
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        text = _escaped(flat)
        if _parse(text) != flat:  # two lone surrogates that would be read back as the one character of the pair
            raise NotSerializable(f"{where}: text with surrogates that form a pair cannot be stored") from None
    return text


def _load(text: str) -> Any:
    if type(text) is str and len(text) > DEEPEST:
        try:
            check_nesting(text)
        except NestedTooDeeply as error:
            raise DecodeError(f"the stored text is {error}") from None
    # Our own text has no space around it: the scanner alone reads it, in half the time.
    try:
        value, end = _scan(text, 0)
        if end == len(text):
            return value
    except (StopIteration, ValueError, TypeError, RecursionError):
        pass
    try:
        return _parse(text)
    except (ValueError, TypeError, RecursionError) as error:
        reason = getattr(error, "msg", None) or type(error).__name__
        at = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise DecodeError(f"the stored text is not JSON: {reason}{at}") from None


def _canonical(flat: Any) -> str:
    try:
        return _sorted(flat)
    except (ValueError, RecursionError) as error:
        raise NotSerializable(f"the arguments cannot be stored: {error}") from None
