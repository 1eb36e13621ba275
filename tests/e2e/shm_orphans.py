# SPDX-License-Identifier: MIT
"""A host that is killed leaves nothing behind: its worker processes end with it, and the shared
memory with the last of them. Each host runs under load when it is killed."""
import os
import signal
import subprocess
import sys
import time

program = os.path.join(os.environ["LATHE_BUILD"], "tests", "e2e", "shm_host")
if not os.path.exists(program):
    sys.exit(77)
MEMORY = "memfd:lathe-bus"
HANG_S = 60


def maps_of(pid):
    try:
        with open(f"/proc/{pid}/maps") as maps:
            return maps.read()
    except OSError:
        return ""


def memory_of(pid):
    """The inode of the bus's memory that the process maps: the memory's identity."""
    for line in maps_of(pid).splitlines():
        if MEMORY in line:
            return line.split()[4]
    return None


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def holders(inode):
    """Processes that still map this memory, or hold a descriptor of it."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if any(MEMORY in line and line.split()[4] == inode for line in maps_of(pid).splitlines()):
            found.append(pid)
            continue
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                path = f"/proc/{pid}/fd/{fd}"
                if MEMORY in os.readlink(path) and str(os.stat(path).st_ino) == inode:
                    found.append(pid)
        except OSError:
            pass
    return found


def wait_until(what, true):
    until = time.monotonic() + HANG_S
    while not true():
        if time.monotonic() > until:
            sys.exit(f"{what} not after {HANG_S} s")
        time.sleep(0.01)


for turn in range(3):
    host = subprocess.Popen([program, "hold"], stdout=subprocess.PIPE, text=True)
    words = host.stdout.readline().split()
    workers = [int(word) for word in words[1:]]
    assert words[0] == "workers" and len(workers) == 2, words
    inode = memory_of(host.pid)
    assert inode, "the host maps no memory of a bus"
    wait_until("the workers map it", lambda: all(memory_of(pid) == inode for pid in workers))
    time.sleep(0.05 * turn)
    if turn == 2:  # a worker that can't run can't look after itself: the kernel does
        os.kill(workers[0], signal.SIGSTOP)
    host.send_signal(signal.SIGKILL)
    host.wait()
    wait_until("the workers end", lambda: not any(is_alive(pid) for pid in workers))
    wait_until("the memory goes", lambda: not holders(inode))
    print(f"host {host.pid} killed: workers {workers} are gone, and memory {inode}")
