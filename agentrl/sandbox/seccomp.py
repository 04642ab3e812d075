"""Which system calls a sandbox refuses: those that no program of a user needs and that kernels were broken with.

A filter is bytes of classic BPF, as the kernel reads them; it stands beside what bwrap or docker refuse already.
"""

from __future__ import annotations

import platform
import struct
from collections.abc import Sequence
from typing import TypeAlias

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ARCHITECTURE, _NUMBER, _FIRST = 4, 0, 16
"Where what is asked lies: a call's first argument last, of it the lower half."
_KILL, _ALLOW, _ERROR = 0x80000000, 0x7FFF0000, 0x00050000
_ANSWERS = {
    **{"kill": _KILL, "allow": _ALLOW, "refuse": _ERROR | 1},
    **{"no such call": _ERROR | 38, "no such family": _ERROR | 97},
}
"The last three: the call fails with EPERM, ENOSYS or EAFNOSUPPORT."
_OTHER_ABI = 0x40000000
"Calls of x32 begin here; they would pass by the numbers below."
# Numbers of x86-64 and of arm64; -1 where there is none.
_CALLS = {
    **{"ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272)},
    **{"mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97)},
    **{"setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430)},
    **{"fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442)},
    **{"keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218), "bpf": (321, 280)},
    **{"perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425)},
    **{"io_uring_enter": (426, 426), "io_uring_register": (427, 427), "kexec_load": (246, 104)},
    **{"kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273)},
    **{"delete_module": (176, 106), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225)},
    **{"settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171)},
    **{"acct": (163, 89), "quotactl": (179, 60), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265)},
    **{"sethostname": (170, 161), "setdomainname": (171, 162), "iopl": (172, -1), "ioperm": (173, -1)},
    **{"syslog": (103, 116), "personality": (135, 92), "mknod": (133, -1), "mknodat": (259, 33)},
    # Memory that no limit of a process or a folder counts.
    **{"memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "semget": (64, 190)},
    **{"msgget": (68, 186), "pidfd_getfd": (438, 438), "fanotify_init": (300, 262)},
    # Of which a user of the machine, all sessions together, has a hundred.
    **{"inotify_init": (253, -1), "inotify_init1": (294, 26), "modify_ldt": (154, -1)},
}
_CLONE, _CLONE3, _SOCKET = (56, 220), (435, 435), (41, 198)
_NAMESPACES = 0x7E020000
"The flags of `clone` that make one. Those of `clone3` lie in memory, where no filter reads; glibc asks `clone` then."
_FAMILIES = (1, 2, 10, 16)
"Unix, IPv4, IPv6, netlink: what a network namespace holds. Others reach this machine's own host, or seldom used code."
_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"By the kernel's number of the architecture, and the column above."


def program(machine: str = "") -> bytes:
    """The filter for `machine` (this one by default); empty where its numbers are not known."""
    known = _MACHINES.get(machine or platform.machine())
    if known is None:
        return b""
    architecture, column = known
    numbers = sorted({numbers[column] for numbers in _CALLS.values()} - {-1})
    lines: list[_Line | str] = [
        (_LOAD, _ARCHITECTURE, "", ""),
        (_EQUAL, architecture, "", "kill"),
        (_LOAD, _NUMBER, "", ""),
        (_AT_LEAST, _OTHER_ABI, "refuse", ""),
        *((_EQUAL, number, "refuse", "") for number in numbers),
        (_EQUAL, _CLONE3[column], "no such call", ""),
        (_EQUAL, _CLONE[column], "clone", ""),
        (_EQUAL, _SOCKET[column], "socket", "allow"),
        "clone",
        (_LOAD, _FIRST, "", ""),
        (_ANY_BIT, _NAMESPACES, "refuse", "allow"),
        "socket",
        (_LOAD, _FIRST, "", ""),
        *((_EQUAL, family, "allow", "") for family in _FAMILIES),
        (_RETURN, _ANSWERS["no such family"], "", ""),
    ]
    for name, answer in _ANSWERS.items():
        lines += [name, (_RETURN, answer, "", "")]
    return _assembled(lines)


_Line: TypeAlias = tuple[int, int, str, str]
"Instruction, operand, and the marks to which it jumps where that holds and where not; without one, to the next line."


def _assembled(lines: Sequence[_Line | str]) -> bytes:
    """A line that is text marks a place. Every jump goes forward, over 255 lines at most."""
    marks: dict[str, int] = {}
    told: list[_Line] = []
    for line in lines:
        if isinstance(line, str):
            marks[line] = len(told)
        else:
            told.append(line)

    def jump(place: int, mark: str) -> int:
        return marks[mark] - place - 1 if mark else 0

    return b"".join(
        struct.pack("HBBI", code, jump(place, yes), jump(place, no), operand)
        for place, (code, operand, yes, no) in enumerate(told)
    )
