"""A certificate of localhost that signs itself, made by OpenSSL's own program."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_certificate(directory: Path) -> Path:
    """One file with certificate and key, in PEM."""
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    program = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(
        [*program, *names, "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    both = directory / "localhost.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    return both
