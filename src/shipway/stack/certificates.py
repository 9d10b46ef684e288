"""Certificates that the parts of one local server show each other (mutual TLS)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=36_500)
"""The certificates live and die with one data folder, so they need not expire."""

_AUTHORITY = "shipway stack"


def make_certificates(address: str) -> dict[str, str]:
    """Make an authority, and one certificate by it for every part that serves or calls at `address`.

    The authority's own key is not returned: nobody can make a second certificate with it.

    Returns:
        The contents of `ca.crt`, `part.crt` and `part.key`, as PEM.
    """
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _start(_AUTHORITY, authority_key).add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address(address))])
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    part = _start("part", key).add_extension(names, False).add_extension(usage, False)
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return {
        "ca.crt": authority.sign(authority_key, hashes.SHA256()).public_bytes(pem).decode(),
        "part.crt": part.sign(authority_key, hashes.SHA256()).public_bytes(pem).decode(),
        "part.key": private.decode(),
    }


def _start(subject: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _AUTHORITY)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # A day back, because clocks may be set back.
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + LIFETIME)
    )
