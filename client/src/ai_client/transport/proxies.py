"""Which proxy a URL is reached by: that of the settings, else of the environment, unless `NO_PROXY` names its host.

The names are those that curl and Python know: `https_proxy`, `http_proxy`, `all_proxy` and `no_proxy`, in small letters
or capitals. A transport is made for each proxy that is in use, and for what needs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from ai_client.errors import ConfigurationError
from ai_client.transport.base import (
    PoolStatistics,
    TransportOptions,
    WireRequest,
    WireResponse,
    WireStream,
)
from ai_client.transport.direct import DirectTransport

if TYPE_CHECKING:
    from ai_client.transport.aiohttp import AiohttpTransport
    from ai_client.transport.httpx import HttpxTransport

_MOST_HOSTS: Final = 256


class ProxyRules:
    """From a URL to its proxy. `environment` is that of the process."""

    def __init__(self, proxy_url: str | None, environment: Mapping[str, str]) -> None:
        self._chosen = proxy_url
        names = ("http", "https", "all", "no")
        found = {
            name: environment.get(f"{name}_proxy") or environment.get(f"{name}_proxy".upper())
            for name in names
        }
        if environment.get("REQUEST_METHOD"):
            found["http"] = None  # of a CGI script it would be a request header named Proxy
        self._by_scheme = {scheme: found[scheme] or found["all"] for scheme in ("http", "https")}
        self._direct = tuple(name.strip().lower() for name in (found["no"] or "").split(",") if name.strip())

    @property
    def any(self) -> bool:
        """Whether there is a proxy at all."""
        return self._chosen is not None or any(self._by_scheme.values())

    def of(self, url: str) -> str | None:
        """The proxy's URL, None where there is none. Raises ConfigurationError for one that can't be used."""
        parts = urlsplit(url)
        proxy = self._chosen or self._by_scheme.get(parts.scheme)
        host = (parts.hostname or "").rstrip(".")
        if not proxy or any(_names(name, host, parts.port) for name in self._direct):
            return None
        if "://" not in proxy:
            proxy = f"http://{proxy}"
        if urlsplit(proxy).scheme not in ("http", "https", "socks5", "socks5h"):
            raise ConfigurationError(
                "proxy", f"{urlsplit(proxy).scheme}:// is not supported", remedy="Use http, https or socks5."
            )
        return proxy


def _names(pattern: str, host: str, port: int | None) -> bool:
    """Whether an entry of `NO_PROXY` names a host: `*`, a domain with what is under it, an address or a network."""
    if pattern == "*":
        return True
    name, mark, wanted_port = pattern.rpartition(":")
    if mark and wanted_port.isdigit() and ":" not in name.strip("[]"):
        if int(wanted_port) != port:
            return False
        pattern = name
    pattern = pattern.strip("[]").removeprefix("*").lstrip(".")
    if host == pattern or host.endswith(f".{pattern}"):
        return True
    try:
        return ip_address(host) in ip_network(pattern, strict=False)
    except ValueError:
        return False


class ProxyingTransport:
    """See `base.Transport`: each request by the proxy of its URL."""

    def __init__(self, options: TransportOptions, rules: ProxyRules) -> None:
        self._options = options
        self._rules = rules
        self._proxy_of: dict[str, str | None] = {}
        self._by_proxy: dict[str | None, DirectTransport | AiohttpTransport | HttpxTransport] = {}

    async def fetch(self, request: WireRequest) -> WireResponse:
        return await self._transport(request.url).fetch(request)

    async def open(self, request: WireRequest) -> WireStream:
        return await self._transport(request.url).open(request)

    def statistics(self) -> PoolStatistics:
        told = [transport.statistics() for transport in self._by_proxy.values()]
        if not told:
            return PoolStatistics(self._options.pool_size, 0, 0)
        return PoolStatistics(
            self._options.pool_size, sum(each.in_use for each in told), sum(each.waiting for each in told)
        )

    async def aclose(self) -> None:
        for transport in self._by_proxy.values():
            await transport.aclose()

    def abandon(self) -> None:
        """Lets go of its connections without waiting: scripts end without closing."""
        for transport in self._by_proxy.values():
            transport.abandon()

    def _transport(self, url: str) -> DirectTransport | AiohttpTransport | HttpxTransport:
        host = url[: url.find("/", len("https://"))]
        if host not in self._proxy_of:
            if len(self._proxy_of) >= _MOST_HOSTS:
                self._proxy_of.clear()
            self._proxy_of[host] = self._rules.of(url)
        proxy = self._proxy_of[host]
        transport = self._by_proxy.get(proxy)
        if transport is None:
            transport = self._by_proxy[proxy] = self._made(proxy)
        return transport

    def _made(self, proxy: str | None) -> DirectTransport | AiohttpTransport | HttpxTransport:
        options = replace(self._options, proxy_url=proxy)
        if proxy is None:
            return DirectTransport(options)
        if proxy.startswith("socks"):
            from ai_client.transport.httpx import HttpxTransport  # noqa: PLC0415 - memory that few need

            return HttpxTransport(options=options)
        from ai_client.transport.aiohttp import AiohttpTransport  # noqa: PLC0415 - aiohttp takes 12 MB

        return AiohttpTransport(options)


def default_transport(
    options: TransportOptions | None = None, *, environment: Mapping[str, str]
) -> DirectTransport | ProxyingTransport:
    """The fastest transport that does what `options` and the environment's proxies ask for."""
    chosen = options or TransportOptions()
    rules = ProxyRules(chosen.proxy_url, environment)
    return ProxyingTransport(chosen, rules) if rules.any else DirectTransport(chosen)
