"""Trees whose difference needs every kind of record of a delta, in every way that landing it has to master.

    make(top, "old")          # then "small", then "big"; needs root and a filesystem with all kinds of metadata
    finish(plain, delta)      # plain: what repl-diff made of two of them; delta: the same with what only a failing source sends

The plan of the delta to `small` is small; that to `big` is above the size from which repl-apply works on a copy of its catalog.
"""
import os
import random
import shutil
import stat
import struct
import subprocess

import craft


OUTSIDE = "large, with a name outside"


def noise(n, seed):
    return random.Random(seed).randbytes(n)


def put(path, data, mode=0o644, mtime=1_600_000_000_123_456_789):
    with open(path, "wb") as f:
        f.write(data)
    os.chmod(path, mode)
    os.utime(path, ns=(mtime, mtime))


def tool(*words):
    subprocess.run(words, check=True)


def many(top, names, size=10):
    os.makedirs(top)
    for n in names:
        put(os.path.join(top, n), noise(size, n))


def quiet(path):
    """What happened in a directory does not show in its own time, so that nothing is said of the directory."""
    os.utime(path, ns=(0, 1_500_000_000_000_000_001))


def make_old():
    put("patched", noise(200_000, 1))
    put("appended", noise(30_000, 2))
    put("shortened", noise(70_001, 3))
    put("holed", noise(150_000, 4))
    put("whole", b"version 1\n")
    put("inserted", noise(120_000, 5))
    put("source", noise(64 << 10, 6))
    put("blocks 64K", noise(700_000, 7))
    put("emptied", noise(5000, 8))
    # Large enough to be patched in place where extents cannot be shared; OUTSIDE has another name there, so it must not be.
    put("large", noise(1_300_000, 9))
    put(OUTSIDE, noise(1_200_000, 10))
    put("stays", b"nobody touches this\n")

    os.mkdir("links")
    for i, n in enumerate(("grows", "moves", "edited", "breaks")):
        put("links/" + n, noise(6000, 10 + i))
        os.link("links/" + n, "links/%s 2" % n)
    os.symlink("target", "links/symbolic")
    os.link("links/symbolic", "links/symbolic 2", follow_symlinks=False)
    os.mkfifo("links/fifo")

    many("moved dir", "abc")
    many("moved dir/deep", "xy", 5000)
    many("swap a", "12")
    many("swap b", "34")
    os.makedirs("outer/inner/core")
    put("outer/inner/core/f", b"core")
    many("became a file", ["itself", "other"])
    put("became a dir", noise(9000, 20))
    put("became a link", b"x")
    os.symlink("x", "became a fifo")
    for i in range(3):
        put("rotate %d" % i, noise(4000 + i, 30 + i))
    many("goes/with/all", "pqr")
    put("goes/file", noise(5000, 40))
    os.symlink("nowhere", "goes/link")
    os.mkfifo("goes/fifo")
    os.mknod("goes/node", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.symlink("old target", "symlink")
    os.mknod("device", stat.S_IFBLK | 0o660, os.makedev(7, 1))

    os.mkdir("meta")
    for n in ("mode", "owner", "setuid", "xattr", "acl", "capable", "time"):
        put("meta/" + n, b"#" + n.encode())
    os.setxattr("meta/xattr", "user.goes", b"1")
    os.setxattr("meta/xattr", "user.stays", b"2")
    os.mkdir("meta/dir")

    os.mkdir("locked")
    put("locked/edited", noise(20_000, 50))
    put("locked/moved", noise(100, 51))
    put("locked/gone", b"g")
    put("locked/log", noise(10_000, 52))
    many("locked/dir", "st")
    many("locked/closed", "u", 5000)
    put("locked/linked", noise(200, 53))
    os.link("locked/linked", "locked/linked 2")
    put("locked/half", noise(300, 54))
    os.link("locked/half", "locked/half 2")
    put("locked/pair", noise(9000, 55))
    os.link("locked/pair", "locked/pair 2")

    many("quiet", "abcd", 300)
    many("quiet/moved", "ef", 300)
    quiet("quiet")


def make_small():
    def edit(path, at, data, size=None):
        with open(path, "r+b") as f:
            f.seek(at)
            f.write(data)
            if size is not None:
                f.truncate(size)

    edit("patched", 50_000, noise(9000, 101))
    edit("appended", 30_000, noise(20_000, 102))
    edit("shortened", 10_000, noise(100, 103), 41_003)
    tool("fallocate", "-p", "-o", "40960", "-l", "65536", "holed")
    edit("holed", 140_000, b"after the hole")
    put("whole", b"version 2, replaced\n")
    data = noise(120_000, 5)
    put("inserted", data[:30_000] + b"seven b" + data[30_000:])
    put("copied", noise(64 << 10, 6)[4096:] + noise(5000, 104))
    edit("blocks 64K", 300_000, noise(70_000, 105))
    put("emptied", b"")
    for name in ("large", OUTSIDE):
        edit(name, 5000, noise(3000, 112))
        edit(name, 700_000, noise(20_000, 113), 1_100_001)
        tool("fallocate", "-p", "-o", "204800", "-l", "40960", name)
    put("new file", noise(80_000, 106))
    put("new empty", b"")
    with open("new sparse", "wb") as f:
        f.truncate(3 << 20)
        f.seek(1 << 20)
        f.write(noise(5000, 107))

    os.link("links/grows", "links/grows 3")
    os.unlink("links/moves")
    os.link("links/moves 2", "links/moved elsewhere")
    edit("links/edited", 5000, b"through one of two names")
    os.unlink("links/breaks 2")
    put("links/breaks 2", noise(6000, 108))
    os.unlink("links/symbolic")
    os.link("links/fifo", "links/fifo 2")
    put("links/new", noise(7000, 109))
    os.mkdir("links/far")
    os.link("links/new", "links/far/new 2")

    os.rename("moved dir", "moved to")
    put("moved to/deep/x", noise(5000, 110))
    os.unlink("moved to/a")
    os.rename("swap a", "swap c")
    os.rename("swap b", "swap a")
    os.rename("swap c", "swap b")
    os.rename("outer/inner", "inner")  # a directory into its former child
    os.rename("outer", "inner/core/outer")
    os.rename("became a file/itself", "tmp")
    shutil.rmtree("became a file")
    os.rename("tmp", "became a file")
    os.unlink("became a dir")
    many("became a dir", "vw")
    os.unlink("became a link")
    os.symlink("stays", "became a link")
    os.unlink("became a fifo")
    os.mkfifo("became a fifo")
    os.rename("rotate 0", "tmp")
    os.rename("rotate 1", "rotate 0")
    os.rename("rotate 2", "rotate 1")
    os.rename("tmp", "rotate 2")
    shutil.rmtree("goes")
    os.unlink("symlink")
    os.symlink("new target", "symlink")
    os.unlink("device")
    os.mknod("device", stat.S_IFBLK | 0o600, os.makedev(7, 2))
    os.mkdir("new dir", 0o700)
    os.mknod("new dir/char", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    os.mknod("new dir/block", stat.S_IFBLK | 0o660, os.makedev(7, 3))
    os.mkfifo("new dir/fifo", 0o600)
    os.symlink("x" * 900, "new dir/link")
    os.makedirs("new dir/1/2/3")

    os.chmod("meta/mode", 0o421)
    os.chown("meta/owner", 12, 34)
    os.chown("meta/setuid", 33, 33)
    os.chmod("meta/setuid", 0o6755)
    os.removexattr("meta/xattr", "user.goes")
    os.setxattr("meta/xattr", "user.comes", b"3" * 500)
    tool("setfacl", "-m", "u:1000:rwx,g:2000:r-x,m::r-x", "meta/acl")
    os.chown("meta/capable", 33, 33)
    tool("setcap", "cap_net_raw+ep", "meta/capable")
    tool("setfacl", "-d", "-m", "u:1000:rwx", "meta/dir")
    os.chmod("meta/dir", 0o2775)
    os.utime("meta/time", ns=(0, 999_999_999))
    os.setxattr(".", "user.root", b"of the image")
    os.chmod(".", 0o751)

    edit("locked/edited", 9000, noise(3000, 111))
    os.rename("locked/moved", "locked/moved to")
    os.unlink("locked/gone")
    edit("locked/log", 10_000, noise(5000, 112))
    put("locked/dir/new", b"n")
    os.unlink("locked/dir/s")
    os.rename("locked/closed", "locked/still closed")
    os.rename("locked/linked", "locked/linked too")
    os.link("locked/linked too", "locked/linked 3")
    os.unlink("locked/half 2")
    edit("locked/pair", 5000, noise(2000, 114))

    os.unlink("quiet/a")
    os.rename("quiet/b", "loud")
    edit("quiet/c", 10, b"more")
    os.rename("quiet/moved", "moved from quiet")
    quiet("quiet")


def make_big():
    for i in range(80):
        name = "many/%02d" % i
        os.makedirs("many", exist_ok=True)
        put(name, noise(100, 1000 + i))
        os.setxattr(name, "user.large", noise(3600, 2000 + i))


LOCKED = {
    "old": (("i", "locked/edited"), ("i", "locked/moved"), ("i", "locked/gone"), ("a", "locked/log"), ("i", "locked/dir"),
            ("i", "locked/closed"), ("i", "locked/linked"), ("i", "locked/half"), ("i", "locked/pair")),
    "new": (("i", "locked/edited"), ("i", "locked/moved to"), ("a", "locked/log"), ("i", "locked/dir"),
            ("i", "locked/still closed"), ("i", "locked/linked too"), ("i", "locked/half"),
            ("i", "locked/pair")),
}


def lock(top, which, sign):
    for flag, name in LOCKED[which]:
        tool("chattr", sign + flag, os.path.join(top, name))


def make(top, which):
    """Brings the tree at top from nothing to "old", from there to "small", from there to "big"."""
    here = os.getcwd()
    if which == "old":
        os.mkdir(top)
    else:
        lock(top, "old" if which == "small" else "new", "-")
    os.chdir(top)
    {"old": make_old, "small": make_small, "big": make_big}[which]()
    os.utime(".", ns=(0, 1_650_000_000_000_000_000 + len(which)))
    os.chdir(here)
    lock(top, "old" if which == "old" else "new", "+")


def finish(plain, delta):
    """Adds, before END: a file that is taken back after some of its content came; a beat; a record nobody knows."""
    with open(plain, "rb") as f:
        stream = f.read()
    marks = craft.split(stream)
    out = craft.Stream(craft.DELTA)
    out.head = stream[:16]
    for at, end in zip(marks, marks[1:]):
        type, flags, length = struct.unpack_from("<HHI", stream, at)
        payload = stream[at + 8:end]
        if type == 0x7f:
            break
        if type == 0x2f:
            lost = noise(5000, 200)
            out.rec(0x11, struct.pack("<QQB", 0, 1, craft.FILE) + craft.text(b"zz could not be read")).rec(0x20, craft.meta())
            out.rec(0x21, b"\0" + struct.pack("<I", 4096))
            out.rec(0x22, struct.pack("<Q", 0) + craft.tree(lost) + lost, covered=40).rec(0x14, b"\0")
            out.rec(0x70, struct.pack("<Q", 1), flags=1).rec(0x6f0, b"whatever", flags=1)
        out.rec(type, payload, flags, covered=40 if type == 0x22 else None)
    out.trailer().save(delta, tail=False)


def plan_size(path):
    """About what the plan takes: all but content."""
    with open(path, "rb") as f:
        stream = f.read()
    marks = craft.split(stream)
    return sum(end - at for at, end in zip(marks, marks[1:]) if stream[at] not in (0x22, 0x23, 0x24))
