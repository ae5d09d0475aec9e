"""Runs one Python program in a jail: `jail.py SETTINGS`, JSON on the command line. Standard library only.

With namespaces (Linux) the program has processes, users, mounts, network and System V objects of its own: an empty
root with the interpreter and the system's libraries read-only, an empty working directory in memory, no network
device, no other process, no capability and no way to get one. It is the first process of its namespace, so when it
ends, or this launcher does, everything it started is killed by the kernel.

Without (`weak`) it gets the limits alone.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import stat
import struct
import sys

NOBODY = 65534
INSIDE = 1000  # the user that the program believes to be: not 0, so that capabilities end when it is started
NEWNS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x08000000, 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 0x1000, 0x4000, 0x40000
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, ATTR_RDONLY = 442, -100, 0x8000, 1
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
ROOT, WORK = "/tmp", "/work"  # where the new root is mounted, and the working directory in it
NEEDED = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/etc/ld.so.cache", "/dev/null", "/dev/urandom")
FAILED, TIMED_OUT, NO_JAIL = 1, 124, 125

libc = ctypes.CDLL(None, use_errno=True)


def must(what: str, result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    texts = (source.encode(), target.encode(), kind.encode())
    must(f"mount {target}", libc.mount(*texts, ctypes.c_ulong(flags), data.encode() or None))


def become_nobody() -> None:
    """A launcher that is root becomes nobody, for good."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    must("prctl", libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0))  # else /proc/self is root's, and its maps cannot be written


def enter_namespaces(megabytes: int) -> None:
    """New namespaces, and the new root of the program, which is not entered yet.

    A launcher that is root builds the new root while it can read all (an interpreter in /root), then is nobody.
    """
    root = os.geteuid() == 0
    if root:
        must("unshare", libc.unshare(NEWNS))
    else:
        enter_all()
    build_root()
    if root:
        become_nobody()
        enter_all()
    mount("tmpfs", ROOT + WORK, "tmpfs", MS_NOSUID | MS_NODEV, f"size={megabytes}m,mode=700")


def enter_all() -> None:
    user, group = os.geteuid(), os.getegid()
    must("unshare", libc.unshare(NEWUSER | NEWNS | NEWPID | NEWNET | NEWIPC))
    for name, text in (("setgroups", "deny"), ("uid_map", f"{INSIDE} {user} 1"), ("gid_map", f"{INSIDE} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def build_root() -> None:
    """What the program sees, read-only, under `ROOT`."""
    shown = {path: os.open(path, os.O_PATH) for path in (*NEEDED, sys.base_prefix) if os.path.exists(path)}
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    mount("tmpfs", ROOT, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for path, descriptor in shown.items():  # opened before ROOT hid what is under it
        show(path, descriptor)
    os.mkdir(ROOT + WORK)
    attributes = struct.pack("QQQQ", ATTR_RDONLY, 0, 0, 0)
    must(
        "mount_setattr",
        libc.syscall(MOUNT_SETATTR, AT_FDCWD, ROOT.encode(), AT_RECURSIVE, attributes, len(attributes)),
    )


def show(path: str, descriptor: int) -> None:
    """Make `path`, open as `descriptor`, visible at the same place under the new root."""
    target = ROOT + path
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "w"):
            pass
    mount(f"/proc/self/fd/{descriptor}", target, "", MS_BIND | MS_REC)
    os.close(descriptor)


def limit(settings: dict[str, int]) -> None:
    for what, value in (
        (resource.RLIMIT_CPU, settings["cpu_seconds"]),
        (resource.RLIMIT_AS, settings["memory_mb"] << 20),
        (resource.RLIMIT_FSIZE, settings["file_mb"] << 20),
        (resource.RLIMIT_NPROC, settings["processes"]),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (value, value))
    must("prctl", libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def become(settings: dict[str, int], program: str, weak: bool) -> None:
    """Become the program; never returns."""
    must("prctl", libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if weak:
        os.setsid()
    else:
        os.chroot(ROOT)
        os.chdir(WORK)
    limit(settings)
    os.execve(sys.executable, [sys.executable, "-I", "-S", "-B", "-c", program], {})


def run(settings: dict[str, int], program: str, weak: bool) -> int:
    """Start the program and wait for it; the exit status of this launcher."""
    if not weak:
        enter_namespaces(settings["file_mb"])
    child = os.fork()
    if not child:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            become(settings, program, weak)
        except OSError as error:
            sys.stderr.write(str(error))
        os._exit(NO_JAIL)
    late = signal.sigtimedwait({signal.SIGCHLD}, settings["wall_seconds"]) is None
    os.kill(child, signal.SIGKILL)  # not reaped yet, so the number is still its own
    if weak:
        kill_group(child)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return TIMED_OUT if late else code if code in (0, NO_JAIL) else FAILED


def kill_group(leader: int) -> None:
    """Kill what the program left behind in its process group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def main() -> int:
    settings, program, weak = json.loads(sys.argv[1])
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    try:
        return run(settings, program, weak)
    except OSError as error:
        sys.stderr.write(str(error))
        return NO_JAIL


if __name__ == "__main__":
    sys.exit(main())
