"""Access tokens under attack. Forged ones are made by hand here, not by the library that verifies them."""

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from moorage.identity import TokenSigner, User
from moorage.identity.tokens import InvalidToken, TokenExpired, new_opaque_token, opaque_digest
from moorage.ids import UserId

KEY = "k" * 48
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
LIFETIME = timedelta(hours=24)
FAMILY = UUID("550e8400-e29b-41d4-a716-446655440000")
ALICE = User(UserId("alice"), "!", email=None, is_admin=True, is_active=True, token_version=3, created_at=NOW)
SIGNER = TokenSigner(KEY, lifetime=LIFETIME)
HEADER = {"alg": "HS256", "typ": "JWT"}
CLAIMS: dict[str, Any] = {
    "sub": "alice",
    "ver": 3,
    "jti": "0" * 32,
    "sid": FAMILY.hex,
    "iss": "moorage",
    "aud": "moorage",
    "typ": "access",
    "iat": int(NOW.timestamp()),
    "exp": int(NOW.timestamp()) + 3600,
}


def part(data: object) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def forged(claims: object = CLAIMS, header: object = HEADER, *, key: str = KEY, digest: str = "sha256") -> str:
    """A token with a true signature under `key`, whatever it says."""
    signed = f"{part(header)}.{part(claims)}"
    return f"{signed}.{part(hmac.new(key.encode(), signed.encode(), digest).digest())}"


def refuse(token: str) -> None:
    with pytest.raises(InvalidToken):
        SIGNER.verify(token, NOW)


def test_what_was_issued_is_verified() -> None:
    claims = SIGNER.verify(SIGNER.issue(ALICE, NOW, family=FAMILY), NOW)
    assert (claims.user_id, claims.token_version, claims.family) == ("alice", 3, FAMILY)
    assert claims.expires_at == NOW + LIFETIME


def test_a_token_made_by_hand_with_all_claims_is_verified() -> None:
    assert SIGNER.verify(forged(), NOW).user_id == "alice"


def test_each_token_has_an_id_of_its_own() -> None:
    ids = {SIGNER.verify(SIGNER.issue(ALICE, NOW, family=FAMILY), NOW).token_id for _ in range(20)}
    assert len(ids) == 20


def test_rights_are_not_in_the_token() -> None:
    assert ALICE.is_admin
    assert "admin" not in SIGNER.issue(ALICE, NOW, family=FAMILY)
    assert not hasattr(SIGNER.verify(SIGNER.issue(ALICE, NOW, family=FAMILY), NOW), "is_admin")


@pytest.mark.parametrize(("seconds", "counts"), [(-31, False), (-30, True), (0, True), (29, True), (30, False)])
def test_clocks_may_differ_by_thirty_seconds(seconds: int, counts: bool) -> None:
    """Before it was issued, or after it expired."""
    token = SIGNER.issue(ALICE, NOW, family=FAMILY)
    at = NOW + timedelta(seconds=seconds) + (LIFETIME if seconds >= 0 else timedelta())
    if counts:
        assert SIGNER.verify(token, at).user_id == "alice"
    else:
        with pytest.raises((InvalidToken, TokenExpired)):
            SIGNER.verify(token, at)


def test_an_expired_token_says_so() -> None:
    with pytest.raises(TokenExpired) as caught:
        SIGNER.verify(SIGNER.issue(ALICE, NOW, family=FAMILY), NOW + timedelta(days=2))
    assert caught.value.code == "token_expired"


def test_another_key_is_refused() -> None:
    refuse(TokenSigner("x" * 48, lifetime=LIFETIME).issue(ALICE, NOW, family=FAMILY))


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
def test_no_signature_is_refused(algorithm: str) -> None:
    refuse(f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part(CLAIMS)}.")
    refuse(forged(header={"alg": algorithm, "typ": "JWT"}))


@pytest.mark.parametrize(("algorithm", "digest"), [("HS384", "sha384"), ("HS512", "sha512"), ("hs256", "sha256")])
def test_another_algorithm_is_refused_though_the_key_is_right(algorithm: str, digest: str) -> None:
    refuse(forged(header={"alg": algorithm, "typ": "JWT"}, digest=digest))


def test_a_signature_by_an_rsa_key_is_refused() -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    signed = f"{part({'alg': 'RS256', 'typ': 'JWT'})}.{part(CLAIMS)}"
    refuse(f"{signed}.{part(private.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}")


def test_a_public_key_as_the_secret_is_refused() -> None:
    """The confusion of RS256 and HS256: a verifier with an RSA key takes it for an HMAC secret."""
    public = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    refuse(forged(key=pem))
    refuse(forged(header={"alg": "RS256", "typ": "JWT"}, key=pem))


@pytest.mark.parametrize("field", ["jku", "x5u", "kid", "jwk", "x5c"])
def test_keys_that_the_token_brings_along_are_not_used(field: str) -> None:
    own = {"kty": "oct", "k": part(b"attacker" * 6)}
    value = {"jwk": own, "x5c": ["AAAA"]}.get(field, "http://127.0.0.1:9/../../dev/null")
    refuse(forged(header={**HEADER, field: value}, key="attacker" * 6))
    assert SIGNER.verify(forged(header={**HEADER, field: value}), NOW).user_id == "alice"


@pytest.mark.parametrize("crit", [["exp"], ["b64"], ["unknown"], [], None, "exp"])
def test_critical_extensions_are_refused(crit: object) -> None:
    refuse(forged(header={**HEADER, "crit": crit}))


@pytest.mark.parametrize("name", sorted(CLAIMS))
def test_every_claim_is_required(name: str) -> None:
    refuse(forged({key: value for key, value in CLAIMS.items() if key != name}))


WRONG: list[tuple[str, Any]] = [
    *(("aud", value) for value in ("other", ["moorage"], ["moorage", "other"], "", None, {"moorage": 1})),
    *(("iss", value) for value in ("other", ["moorage"], "", None)),
    *(("typ", value) for value in ("refresh", "JWT", "", None, ["access"])),
    *(("sub", value) for value in ("", "Alice", "a/../b", "al\u0000ice", "älice", 7, None, ["alice"], {}, "x" * 33)),
    *(("ver", value) for value in ("3", 3.0, True, None, [3])),
    *(("jti", value) for value in ("", 7, None, ["x"])),
    *(("sid", value) for value in ("", "alice", 7, None, "g" * 32)),
    *(("iat", value) for value in (int(NOW.timestamp()) + 31, "0", 1.5, True, None, -1, 0, 2**70)),
    *(("exp", value) for value in ("9999999999", 9999999999.0, True, None, -1, 0, 2**70, 2**63, [9999999999])),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_claim_of_another_value_or_kind_is_refused(name: str, value: object) -> None:
    refuse(forged({**CLAIMS, name: value}))


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity", "1e10", "9" * 400, "9" * 5000])
@pytest.mark.parametrize("name", ["iat", "exp"])
def test_numbers_that_are_no_times_are_refused(name: str, number: str) -> None:
    raw = json.dumps({**CLAIMS, name: "@"}).replace('"@"', number).encode()
    refuse(forged(raw))


@pytest.mark.parametrize("claims", [[], None, 7, "text", b"", b"\xff\xfe", b"{", b"[" * 1500])
def test_a_body_that_is_no_object_is_refused(claims: object) -> None:
    refuse(forged(claims))


@pytest.mark.parametrize("header", [[], None, 7, "text", {}, b"", b"\xff\xfe", b"{", b"[" * 1500, b'{"alg":' * 300])
def test_a_header_that_is_no_object_is_refused(header: object) -> None:
    refuse(forged(header=header))


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "...",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        "Bearer x",
        "\x00",
        "älice.ü.ß",
        "\ud800.a.b",
        "🔑" * 50,
        "=.=.=",
    ],
)
def test_garbage_is_refused(token: str) -> None:
    refuse(token)


def test_a_huge_token_is_refused_at_once() -> None:
    refuse(forged({**CLAIMS, "padding": "x" * 5_000_000}))


def test_every_other_signature_is_refused() -> None:
    token = forged()
    head, _, signature = token.rpartition(".")
    refuse(f"{head}.")
    refuse(f"{head}.{signature[:-4]}")
    refuse(f"{head}.{signature[::-1]}")
    refuse(f"{part({**HEADER})}.{part({**CLAIMS, 'sub': 'root-2'})}.{signature}")


@given(st.text(max_size=300))
def test_no_text_makes_the_verifier_fail_in_another_way(token: str) -> None:
    refuse(token)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(CLAIMS)), json_values)
def test_no_claim_makes_the_verifier_fail_in_another_way(name: str, value: object) -> None:
    """Even under our own key."""
    with suppress(InvalidToken, TokenExpired):
        SIGNER.verify(forged({**CLAIMS, name: value}), NOW)


@given(st.sampled_from(["alg", "typ", "crit", "kid", "jwk", "cty", "b64"]), json_values)
def test_no_header_makes_the_verifier_fail_in_another_way(name: str, value: object) -> None:
    with suppress(InvalidToken):
        SIGNER.verify(forged(header={**HEADER, name: value}), NOW)


def test_opaque_tokens_are_256_random_bits_of_which_only_the_digest_is_kept() -> None:
    token = new_opaque_token()
    assert len(token) == 43
    assert token != new_opaque_token()
    assert opaque_digest(token) == hashlib.sha256(token.encode()).digest()


@given(st.text(max_size=50))
def test_every_text_has_a_digest(token: str) -> None:
    assert len(opaque_digest(token)) == 32
