"""TLS of both transports: which certificates are trusted, and what is said when one is not."""

from __future__ import annotations

import ssl
from pathlib import Path

from ai_client.errors import ConfigurationError, TLSVerificationError
from ai_client.platform.given_file import read_given
from ai_client.transport.base import TransportOptions


def make_tls_context(options: TransportOptions) -> ssl.SSLContext:
    """The host's trust store, and the bundle of `ca_path` beside it. TLS 1.2 at least."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if options.ca_path is not None:
        try:
            context.load_verify_locations(
                cadata=read_given(Path(options.ca_path), patience_s=0).decode("ascii")
            )
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


def verification_error(host: str, error: BaseException) -> TLSVerificationError:
    """What OpenSSL says of it. The handshake ended before a version was agreed on, so what was offered is told."""
    reason = getattr(error, "verify_message", None) or getattr(error, "reason", None) or str(error)
    return TLSVerificationError(host, verify_reason=str(reason), tls_version="TLSv1.2 or TLSv1.3 offered")


def find_tls_error(error: BaseException) -> ssl.SSLError | None:
    """The TLS error that another library's error was made from, if it was."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None
