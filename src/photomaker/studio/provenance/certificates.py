"""Certificates for signing: the user's, or one created at first use that stays on this machine."""

from __future__ import annotations

import datetime
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from photomaker.errors import ProvenanceError
from photomaker.files import atomic
from photomaker.studio.desk.folders import data_folder

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.types import (
        CertificatePublicKeyTypes,
        PrivateKeyTypes,
        PublicKeyTypes,
    )

OWN_NAME = "self-made certificate"
YEARS = 20
"""Validity of the certificate created at first use."""
LARGEST = 1 << 20
"""Most bytes of a certificate or key file."""
_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
_LEAST_RSA = 2048


@dataclass(frozen=True)
class Certificate:
    """A certificate with its key.

    Attributes:
        chain: PEM, the signer's certificate first, then the rest of its chain.
        key: PEM of its private key.
        algorithm: C2PA's name of the signature, such as `es256`.
        name: Name in the certificate.
        own: Whether it was created on this machine.
    """

    chain: bytes
    key: bytes = field(repr=False)
    algorithm: str
    name: str
    own: bool = False


def own_file() -> Path:
    """File of the certificate created at first use, with its key."""
    return data_folder() / "provenance" / "certificate.pem"


def own_certificate() -> Certificate:
    """The certificate of this machine, created if missing; only the user can read its file.

    Raises:
        ProvenanceError: It cannot be saved, or its file is damaged.
    """
    path = own_file()
    remedy = "delete that file to create a new certificate"
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # one created by another process at the same moment is as good
            with suppress(FileExistsError), atomic(path, overwrite=False, private=True) as file:
                file.write(_made())
        if path.stat().st_mode & 0o077 and os.name == "posix":
            path.chmod(0o600)
    except OSError as error:
        raise ProvenanceError(
            f"the certificate for signing cannot be saved as {path}: {error.strerror}; set PHOTOMAKER_HOME to a "
            "writable folder, or give --no-provenance"
        ) from error
    data = _read(path, remedy)
    return _checked(data, data, path, path, remedy, own=True)


def given_certificate(certificate: str | os.PathLike[str], key: str | os.PathLike[str]) -> Certificate:
    """A certificate of the user's.

    Args:
        certificate: PEM file, the signer's certificate first, then the rest of its chain.
        key: PEM file of its private key, not protected by a passphrase.

    Raises:
        ProvenanceError: A file cannot be read, the two do not match, or they cannot sign.
    """
    chain, secret = Path(certificate), Path(key)
    wanted = "give PEM files"
    return _checked(_read(chain, wanted), _read(secret, wanted), chain, secret, wanted, own=False)


def own_anchor() -> bytes:
    """PEM of the authority of this machine's certificate; empty if there is none yet."""
    path = own_file()
    if not path.is_file():
        return b""
    from cryptography.hazmat.primitives.serialization import Encoding

    return _chain(_read(path, ""), path, "delete that file")[-1].public_bytes(Encoding.PEM)


def anchors(path: str | os.PathLike[str]) -> bytes:
    """PEM certificates that the user trusts.

    Raises:
        ProvenanceError: The file cannot be read or has none.
    """
    from cryptography.hazmat.primitives.serialization import Encoding

    wanted = "give a PEM file of certificates"
    return b"".join(one.public_bytes(Encoding.PEM) for one in _chain(_read(Path(path), wanted), path, wanted))


# ---- reading


def _read(path: Path, remedy: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise ProvenanceError(f"cannot read {path}: {error.strerror}; {remedy}") from error
    if len(data) > LARGEST:
        raise ProvenanceError(f"{path} is larger than a certificate can be; {remedy}")
    return data


def _chain(data: bytes, path: str | os.PathLike[str], remedy: str) -> list[x509.Certificate]:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise ProvenanceError(f"{path} has no valid PEM certificate; {remedy}") from error


def _secret(data: bytes, path: Path, remedy: str) -> PrivateKeyTypes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    start = data.find(b"-----BEGIN", max(0, data.find(b"PRIVATE KEY-----") - 40))
    try:
        return load_pem_private_key(data[max(0, start) :], password=None)
    except TypeError as error:
        raise ProvenanceError(
            f"the key {path} is protected by a passphrase; give it without one (openssl pkey -in {path} -out plain.pem)"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ProvenanceError(f"{path} has no valid PEM private key; {remedy}") from error


def _checked(
    certificate: bytes, secret: bytes, path: Path, key_path: Path, remedy: str, own: bool
) -> Certificate:
    from cryptography.hazmat.primitives import serialization

    chain, key = _chain(certificate, path, remedy), _secret(secret, key_path, remedy)
    first = chain[0]
    if _public(first.public_key()) != _public(key.public_key()):
        raise ProvenanceError(
            f"the key {key_path} does not match the first certificate in {path}; give the matching key"
        )
    now = datetime.datetime.now(datetime.UTC)
    if not first.not_valid_before_utc <= now <= first.not_valid_after_utc:
        raise ProvenanceError(
            f"the certificate {path} is valid from {first.not_valid_before_utc:%d %B %Y} to "
            f"{first.not_valid_after_utc:%d %B %Y}, which does not include today; give a valid one"
        )
    return Certificate(
        b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain),
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        _algorithm(key, key_path),
        _named(first),
        own,
    )


def _public(key: CertificatePublicKeyTypes | PublicKeyTypes) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _algorithm(key: PrivateKeyTypes, path: Path) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name]
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= _LEAST_RSA:
        return "ps256"
    raise ProvenanceError(
        f"C2PA cannot sign with this kind of key ({path}); give one of P-256, P-384, P-521, Ed25519, or RSA of "
        f"{_LEAST_RSA} bits or more"
    )


def _named(certificate: x509.Certificate) -> str:
    from cryptography.x509.oid import NameOID

    for oid in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME):
        if found := certificate.subject.get_attributes_for_oid(oid):
            return str(found[0].value)
    return certificate.subject.rfc4514_string()


# ---- making


def _made() -> bytes:
    """PEM of a new key, its certificate, and that of its authority, whose key is discarded."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    parts = [_issued(key, authority, False), _issued(authority, authority, True)]
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return secret + b"".join(one.public_bytes(serialization.Encoding.PEM) for one in parts)


def _issued(
    key: EllipticCurvePrivateKey, authority: EllipticCurvePrivateKey, itself: bool
) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID

    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    issuer = f"{OWN_NAME}: authority"
    usage = {name: False for name in _USAGES} | {"key_cert_sign" if itself else "digital_signature": True}
    public, above = key.public_key(), authority.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(issuer if itself else OWN_NAME))
        .issuer_name(_name(issuer))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)  # clocks differ
        .not_valid_after(now + YEARS * 365 * day)
        .add_extension(x509.BasicConstraints(itself, 0 if itself else None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(above), critical=False)
    )
    if not itself:
        emails = x509.ExtendedKeyUsage(
            [ExtendedKeyUsageOID.EMAIL_PROTECTION]
        )  # the usage that C2PA accepts for documents
        builder = builder.add_extension(emails, critical=False)
    return builder.sign(authority, hashes.SHA256())


_USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


def _name(common: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "photomaker"),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )
