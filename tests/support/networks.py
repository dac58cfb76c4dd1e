"""A network of its own for a camera, whose cable can be pulled and whose packets get lost.

The camera stands in a network namespace of the kernel's, with one link to here. The link's filter
throws packets away by a random number, in the kernel (`tc netem` would do too, but many kernels
of virtual machines lack it).
"""

from __future__ import annotations

import itertools
import os
import subprocess
from typing import Self

_NUMBERS = itertools.count()
_RANDOM = 4294963256  # SKF_AD_OFF + SKF_AD_RANDOM of linux/filter.h
_GO_ON, _THROW_AWAY = 4294967295, 2  # TC_ACT_UNSPEC, TC_ACT_SHOT


class CameraNetwork:
    """A namespace and its link; needs root and iproute2."""

    def __init__(self) -> None:
        number = os.getpid() * 8 + next(_NUMBERS)
        self.name = f"gvvad-{number}"
        self._here, self._there = f"gvh{number}", f"gvt{number}"
        # Of 198.18.0.0/15, which is for tests of networks (RFC 2544).
        net = f"198.{18 + (number >> 14) % 2}.{(number >> 6) % 256}"
        self.address = f"{net}.{number % 64 * 4 + 2}"
        run("ip", "netns", "add", self.name)
        try:
            run(*f"ip link add {self._here} type veth peer {self._there} netns {self.name}".split())
            run(*f"ip addr add {net}.{number % 64 * 4 + 1}/30 dev {self._here}".split())
            run("ip", "link", "set", self._here, "up")
            self._inside(f"ip addr add {self.address}/30 dev {self._there}")
            self._inside("ip link set lo up")
            self._inside(f"ip link set {self._there} up")
            self._inside(f"tc qdisc add dev {self._there} clsact")
            self.lose(0.0)
        except AssertionError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def prefix(self) -> list[str]:
        """What a command line that shall run in there begins with."""
        return ["ip", "netns", "exec", self.name]

    def lose(self, share: float) -> None:
        """Lose that share of the camera's packets, 0 to 1, each by its own luck."""
        program = f"4,32 0 0 {_RANDOM},53 0 1 {round(share * (2**32 - 1))}"
        program += f",6 0 0 {_GO_ON},6 0 0 {_THROW_AWAY}"
        where = f"dev {self._there} egress pref 1 handle 1 protocol ip"
        self._inside(f"tc filter replace {where} bpf da bytecode", program)

    def pull(self) -> None:
        """Pull the camera's cable: packets vanish, nobody is told."""
        self._inside(f"ip link set {self._there} down")

    def plug(self) -> None:
        """Put it in again."""
        self._inside(f"ip link set {self._there} up")

    def close(self) -> None:
        """Take it all away; what still runs in there loses its network."""
        subprocess.run(["ip", "link", "del", self._here], capture_output=True)
        run("ip", "netns", "del", self.name)

    def _inside(self, command: str, *more: str) -> None:
        run(*self.prefix, *command.split(), *more)


def run(*command: str) -> None:
    """Run it or say why it failed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert not done.returncode, f"{' '.join(command)}: {done.stderr}"
