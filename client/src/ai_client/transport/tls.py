"""TLS of both transports: which certificates are trusted, and what is said when one is not."""

from __future__ import annotations

import ssl
from pathlib import Path

from ai_client.errors import ConfigurationError, TLSVerificationError
from ai_client.transport.base import TransportOptions


def make_tls_context(options: TransportOptions) -> ssl.SSLContext:
    """The host's trust store, and the bundle of `ca_path` beside it. TLS 1.2 at least."""
    context = ssl.create_default_context()
    if options.ca_path is not None:
        try:
            context.load_verify_locations(cadata=Path(options.ca_path).read_text("ascii"))
        except (OSError, ssl.SSLError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"cert_path {options.ca_path}",
                f"is not a readable PEM bundle: {error}",
                remedy="Give a PEM file with the CA certificates.",
                key="cert_path",
            ) from error
    if not options.verify_tls:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def verification_error(host: str, error: BaseException, context: ssl.SSLContext) -> TLSVerificationError:
    """What OpenSSL says of it. No version was agreed on, so the range that was offered is told."""
    reason = getattr(error, "verify_message", None) or getattr(error, "reason", None) or str(error)
    return TLSVerificationError(host, verify_reason=str(reason), tls_version=_offered(context))


def _offered(context: ssl.SSLContext) -> str:
    lowest = context.minimum_version.name.replace("_", ".").removesuffix("SUPPORTED")
    highest = context.maximum_version
    name = "TLSv1.3" if highest is ssl.TLSVersion.MAXIMUM_SUPPORTED else highest.name.replace("_", ".")
    return f"offered {lowest} to {name}"
