"""Which sources the server may open; pure.

A stream's URL comes over the network, so it is an attack surface: files only
below directories that the settings name, hosts only in allowed networks, and
ports opened only on allowed addresses.

Its limit: FFmpeg follows a camera's RTSP redirect without asking anybody, so
where cameras themselves may be hostile a firewall has to hold the networks.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from server.streams import Mode, Reason, SourceError, SourceUrl, StreamConfig

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LOOPBACK: tuple[Network, ...] = (
    ipaddress.IPv4Network("127.0.0.0/8"),
    ipaddress.IPv6Network("::1/128"),
)


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """What may be opened.

    Attributes:
        file_roots: directories below which `file://` sources may lie; none by default.
        camera_networks: networks that cameras may be pulled from; None allows every
            address. Link-local (cloud metadata), multicast and unspecified addresses
            are denied unless a network here holds them.
        listen_networks: addresses that LISTEN streams may bind to; loopback by default.
    """

    file_roots: tuple[Path, ...] = ()
    camera_networks: tuple[Network, ...] | None = None
    listen_networks: tuple[Network, ...] = LOOPBACK

    def check(self, config: StreamConfig) -> None:
        """Judge a stream by its configuration alone, without asking any name server.

        Raises:
            SourceError: ADDRESS_DENIED. A host name passes here; its addresses are
                judged by `check_addresses` before they are connected to.
        """
        if config.url.scheme == "file":
            self.allowed_file(config.url)
            return
        if config.is_pushed:
            return  # there is nothing to open
        address = _literal(config.url.host)
        if address is not None:
            self.check_addresses(config, [address])

    def allowed_file(self, url: SourceUrl) -> Path:
        """The file behind a `file://` URL, links resolved.

        Raises:
            SourceError: ADDRESS_DENIED, it does not lie below any of `file_roots`.
        """
        try:
            path = Path(unquote(url.path)).resolve()
        except (OSError, RuntimeError):  # a RuntimeError before Python 3.13
            raise SourceError(
                Reason.ADDRESS_DENIED, f"{url} is a link that leads to itself; name the file"
            ) from None
        if not any(path.is_relative_to(root.resolve()) for root in self.file_roots):
            raise SourceError(
                Reason.ADDRESS_DENIED,
                f"{url} is not below a directory that the settings allow files from",
            )
        return path

    def check_addresses(self, config: StreamConfig, addresses: Iterable[Address]) -> None:
        """Judge the addresses that a stream's host stands for; one bad one denies all.

        Raises:
            SourceError: ADDRESS_DENIED.
        """
        for given in addresses:
            address = getattr(given, "ipv4_mapped", None) or given
            if config.mode is Mode.LISTEN:
                allowed = _is_in(address, self.listen_networks)
                purpose = "listen on"
            else:
                allowed = self._may_pull(address)
                purpose = "connect to"
            if not allowed:
                raise SourceError(
                    Reason.ADDRESS_DENIED, f"the settings do not allow to {purpose} {address}"
                )

    def _may_pull(self, address: Address) -> bool:
        if self.camera_networks is not None:
            return _is_in(address, self.camera_networks)
        return not (address.is_link_local or address.is_multicast or address.is_unspecified)


def _is_in(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
