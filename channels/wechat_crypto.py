"""What makes a request WeChat's: its signatures, and the sealed part of the compatible and the safe mode.

https://developers.weixin.qq.com/doc/service/guide/dev/push/encryption.html
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

#: WeChat pads to blocks of 32 bytes, although those of AES have 16
_BLOCK_BITS = 256
_RANDOM = 16  # bytes before the length, so that the same message never looks the same
_LENGTH = 4


class Sealed(Exception):
    """The sealed part cannot be opened; why, in words for an operator."""


def signature(token: str, *parts: str) -> str:
    """SHA-1 over the token and the parts, sorted and joined: `signature` of (timestamp, nonce), `msg_signature` of
    (timestamp, nonce, sealed part)."""
    joined = b"".join(sorted(_bytes(each) for each in (token, *parts)))
    return hashlib.sha1(joined, usedforsecurity=False).hexdigest()  # the provider's choice; the token is the secret


def is_signed(given: str, tokens: Sequence[str], *parts: str) -> bool:
    """Whether one of the tokens signed the parts. All are tried, so that the time taken does not tell which."""
    mark = _bytes(given)
    matches = [hmac.compare_digest(mark, signature(token, *parts).encode()) for token in tokens]
    return any(matches)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def key_of(encoding_aes_key: str) -> bytes:
    """The AES key behind the 43 characters that the account's page shows. Raises ValueError."""
    key = base64.b64decode(encoding_aes_key + "=", validate=True)
    if len(key) != 32:
        raise ValueError("an EncodingAESKey stands for 32 bytes")
    return key


def opened(sealed: str, keys: Sequence[bytes], app_id: str) -> bytes:
    """The message inside, by the first key that fits. Raises `Sealed`.

    Who sealed it is known from `msg_signature`, which is checked before: nothing here is said to a stranger.
    """
    try:
        content = base64.b64decode("".join(sealed.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Sealed("The sealed part is no base64.") from None
    found: Sealed | None = None
    for key in keys:
        try:
            message, meant = _apart(_decrypted(content, key))
        except ValueError:
            continue
        if hmac.compare_digest(meant, app_id.encode()):
            return message
        found = Sealed("The sealed part is for another app than wechat.app_id.")
    raise found or Sealed("None of wechat.aes_keys opens the sealed part.")


def _decrypted(content: bytes, key: bytes) -> bytes:
    """Raises ValueError: the length or the padding is wrong, as under a wrong key."""
    cipher = Cipher(algorithms.AES(key), modes.CBC(key[:16])).decryptor()
    unpadder = PKCS7(_BLOCK_BITS).unpadder()
    padded = cipher.update(content) + cipher.finalize()
    return unpadder.update(padded) + unpadder.finalize()


def _apart(content: bytes) -> tuple[bytes, bytes]:
    """(message, app id) of `random, length, message, app id`. Raises ValueError."""
    start = _RANDOM + _LENGTH
    length = int.from_bytes(content[_RANDOM:start], "big")
    if len(content) < start or length > len(content) - start:
        raise ValueError("the length is wrong")
    return content[start : start + length], content[start + length :]
