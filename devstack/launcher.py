"""Become one server process: give up root if told to, ask to die with the parent, then exec.

Run as ``python -S -E -P launcher.py PARENT SIGNAL UID GID ACCESS COMMAND...``; it starts in about 15 ms because it
imports next to nothing. The order matters: a change of uid clears the death signal, and a parent that died before
``prctl`` is seen only by looking at ``getppid`` afterwards. UID ``-1`` keeps the current identity; ACCESS ``1``
keeps the right to pass through closed folders (ambient capabilities, man 7 capabilities) for servers that refuse
to run as root below a folder of root's.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_SECUREBITS = 28
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
NO_SETUID_FIXUP = 1 << 2  # without it access(2), which PostgreSQL uses, would ignore the capabilities
KEEP_CAPS = 1 << 4
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
CAPABILITY_VERSION_3 = 0x20080522
ORPHANED = 125  # exit status when the parent was gone before we could ask to die with it


class CapabilityHeader(ctypes.Structure):
    """``struct __user_cap_header_struct``."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class CapabilitySets(ctypes.Structure):
    """``struct __user_cap_data_struct``: one bit per capability."""

    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def checked(result: int, what: str) -> None:
    """Raise OSError with errno unless a C call answered 0."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def keep_access(libc: ctypes.CDLL) -> None:
    """Reduce root's capabilities to those for passing through folders, and make them survive exec."""
    header, sets = CapabilityHeader(CAPABILITY_VERSION_3, 0), (CapabilitySets * 2)()
    checked(libc.capget(ctypes.byref(header), sets), "capget")
    wanted = (1 << CAP_DAC_OVERRIDE) | (1 << CAP_DAC_READ_SEARCH)
    kept = sets[0].permitted & wanted  # containers often grant only the first
    sets[0].effective = sets[0].permitted = sets[0].inheritable = kept
    sets[1].effective = sets[1].permitted = sets[1].inheritable = 0
    checked(libc.capset(ctypes.byref(header), sets), "capset")
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        if kept & (1 << capability):
            checked(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0), "ambient capability")


def drop_root(libc: ctypes.CDLL, uid: int, gid: int, *, access: bool) -> None:
    """Become ``uid``; with ``access`` keep the capabilities for passing through closed folders."""
    if access:
        checked(libc.prctl(PR_SET_SECUREBITS, NO_SETUID_FIXUP | KEEP_CAPS, 0, 0, 0), "securebits")
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if access:
        keep_access(libc)


def main(arguments: list[str]) -> None:
    """Become the command. Exits with ORPHANED when the parent is gone; OSError when a step is refused."""
    parent, signal_number, uid, gid, access = (int(argument) for argument in arguments[:5])
    command = arguments[5:]
    libc = ctypes.CDLL(None, use_errno=True)
    # A shell's background job ignores interrupts, and so would every child; ours are stopped, and die, by signals.
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_DFL)
    if uid >= 0:
        drop_root(libc, uid, gid, access=bool(access))
    if sys.platform == "linux":
        checked(libc.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "death signal")
    if os.getppid() != parent:
        sys.exit(ORPHANED)
    os.execv(command[0], command)  # noqa: S606 - becoming the server is the whole purpose


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        sys.exit(f"launcher: cannot start {sys.argv[6:7]}: {error}")
