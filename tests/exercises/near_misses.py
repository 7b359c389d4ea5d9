"""Near-misses: the mistakes that learners make, each as one edit of the solution, and what it must cost.

An edit, and not a whole function, so that a near-miss stays one when the solution changes.
"""

from __future__ import annotations

from typing import NamedTuple


class Wrong(NamedTuple):
    """A near-miss: the solution with `old` replaced by `new`, and the behaviours that it must lose."""

    item: str
    name: str
    lost: str
    old: str
    new: str


_STATUS = "    if os.WIFSIGNALED(wait_status):\n        return 128 + os.WTERMSIG(wait_status)\n"
_RUN_TRY = """\
        try:
            os.execvpe(argv[0], argv, env)
        except FileNotFoundError:
            status = 127
        finally:
            os._exit(status)
"""
_RUN_WAIT = "    _, wait_status = os.waitpid(pid, 0)\n"
_RUN_RETURN = "    return code if code >= 0 else 128 - code\n"
_ISOLATE = """\
        status = 1
        try:
            status = child()
        finally:
            os._exit(status)
"""
_HANDLER = '        signal.signal(signal.Signals[f"SIG{name}"], pass_on)\n'
_INIT_RETURN = "            return code if code >= 0 else 128 - code\n"

WRONG = [
    Wrong(
        "lab01-exit_status",
        "returns the wait status itself",
        "exited killed",
        _STATUS + "    return os.WEXITSTATUS(wait_status)",
        "    return wait_status",
    ),
    Wrong("lab01-exit_status", "shifts only, no signals", "killed core", _STATUS, ""),
    Wrong("lab01-exit_status", "forgets the 128", "killed core", "128 + os.WTERMSIG", "os.WTERMSIG"),
    Wrong(
        "lab01-exit_status",
        "takes the core bit for the signal",
        "core",
        "os.WTERMSIG(wait_status)",
        "(wait_status & 0xff)",
    ),
    Wrong(
        "lab01-exit_status",
        "negative, as subprocess has it",
        "killed core",
        "128 + os.WTERMSIG",
        "-os.WTERMSIG",
    ),
    Wrong(
        "lab01-exit_status",
        "gives text",
        "exited",
        "return os.WEXITSTATUS(wait_status)",
        "return str(os.WEXITSTATUS(wait_status))",
    ),
    Wrong("lab01-run", "forgets to wait", "waits status missing leak", _RUN_WAIT, "    wait_status = 0\n"),
    Wrong(
        "lab01-run",
        "returns the wait status itself",
        "status missing",
        _RUN_RETURN,
        "    return wait_status\n",
    ),
    Wrong("lab01-run", "signals as negative numbers", "status", _RUN_RETURN, "    return code\n"),
    Wrong(
        "lab01-run",
        "the child returns into the caller",
        "missing leak",
        _RUN_TRY,
        "        os.execvpe(argv[0], argv, env)\n",
    ),
    Wrong("lab01-run", "ignores env", "env", "os.execvpe(argv[0], argv, env)", "os.execvp(argv[0], argv)"),
    Wrong(
        "lab01-run",
        "does not search PATH",
        "env",
        "os.execvpe(argv[0], argv, env)",
        "os.execve(argv[0], argv, env)",
    ),
    Wrong("lab01-run", "127 whatever went wrong", "missing", "status = 126", "status = 127"),
    Wrong(
        "lab01-run",
        "execs in the caller, without a child",
        "child env waits status missing leak",
        "pid = os.fork()",
        "pid = 0",
    ),
    Wrong(
        "lab01-run",
        "drops the program's name from argv",
        "child",
        "argv[0], argv, env",
        "argv[0], argv[:-1], env",
    ),
    Wrong(
        "lab01-make_rootfs",
        "copies the programs only",
        "start",
        ', *re.findall(r"(/\\S+) \\(0x", listing)',
        "",
    ),
    Wrong("lab01-make_rootfs", "misses the loader", "start", 'r"(/\\S+) \\(0x"', 'r"=> (/\\S+)"'),
    Wrong(
        "lab01-make_rootfs",
        "makes symbolic links",
        "there start own",
        "shutil.copy(path, target)",
        "os.path.lexists(target) or os.symlink(path, target)",
    ),
    Wrong(
        "lab01-make_rootfs",
        "loses the mode",
        "there start",
        "shutil.copy(path, target)",
        "shutil.copyfile(path, target)",
    ),
    Wrong(
        "lab01-make_rootfs",
        "puts everything into one directory",
        "there start own",
        "rootfs + path",
        'rootfs + "/" + os.path.basename(path)',
    ),
    Wrong(
        "lab01-make_rootfs", "only the first program", "there start own", "in programs:", "in programs[:1]:"
    ),
    Wrong("lab01-enter_chroot", "forgets chdir", "cwd", '    os.chdir("/")\n', ""),
    Wrong(
        "lab01-enter_chroot",
        "chdir to the old root, before chroot",
        "cwd failure",
        '    os.chroot(rootfs)\n    os.chdir("/")\n',
        '    os.chdir("/")\n    os.chroot(rootfs)\n',
    ),
    Wrong(
        "lab01-enter_chroot",
        "chdir only",
        "root cwd failure",
        '    os.chroot(rootfs)\n    os.chdir("/")\n',
        "    os.chdir(rootfs)\n",
    ),
    Wrong(
        "lab01-enter_chroot",
        "makes a missing rootfs",
        "failure",
        "    os.chroot(rootfs)\n",
        "    os.makedirs(rootfs, exist_ok=True)\n    os.chroot(rootfs)\n",
    ),
    Wrong(
        "lab01-enter_chroot",
        "chroot in a child",
        "root cwd failure",
        "    os.chroot(rootfs)\n",
        "    if os.fork(): return\n    os.chroot(rootfs)\n",
    ),
    Wrong(
        "lab02-shared_namespaces",
        "compares names, not namespaces",
        "differ",
        "mine[name] == theirs.get(name) and ",
        "",
    ),
    Wrong(
        "lab02-shared_namespaces",
        "keeps ..._for_children",
        "same differ",
        ' and not name.endswith("_for_children")',
        "",
    ),
    Wrong("lab02-shared_namespaces", "the ones that differ", "same differ", "mine[name] ==", "mine[name] !="),
    Wrong(
        "lab02-shared_namespaces",
        "knows three kinds",
        "same differ",
        "name in mine if",
        'name in ("pid", "uts", "ipc") if',
    ),
    Wrong(
        "lab02-shared_namespaces",
        "looks at one of the two only",
        "differ gone",
        "look(a), look(b)",
        "look(a), look(a)",
    ),
    Wrong(
        "lab02-shared_namespaces",
        "swallows the error",
        "gone",
        "    mine, theirs = look(a), look(b)\n",
        """\
    try:
        mine, theirs = look(a), look(b)
    except OSError:
        return set()
""",
    ),
    Wrong(
        "lab02-isolate",
        "unshare in the caller",
        "caller",
        "pid = namespace.clone(flags)",
        "namespace.unshare(flags); pid = os.fork()",
    ),
    Wrong("lab02-isolate", "no namespaces at all", "new", "namespace.clone(flags)", "os.fork()"),
    Wrong(
        "lab02-isolate", "one kind too many", "new", "clone(flags)", "clone(flags | namespace.CLONE_NEWNET)"
    ),
    Wrong(
        "lab02-isolate",
        "forgets CLONE_NEWPID",
        "new",
        "clone(flags)",
        "clone(flags & ~namespace.CLONE_NEWPID)",
    ),
    Wrong(
        "lab02-isolate",
        "unshare in the child (its PID stays)",
        "new",
        "pid = namespace.clone(flags)\n    if pid == 0:\n",
        "pid = os.fork()\n    if pid == 0:\n        namespace.unshare(flags)\n",
    ),
    Wrong(
        "lab02-isolate",
        "waits for the child",
        "pid status leak",
        "    return pid\n",
        "    os.waitpid(pid, 0)\n    return pid\n",
    ),
    Wrong(
        "lab02-isolate",
        "the child returns into the caller",
        "status leak",
        _ISOLATE,
        "        status = child()\n",
    ),
    Wrong("lab02-isolate", "exit status always 0", "status leak", "os._exit(status)", "os._exit(0)"),
    Wrong("lab02-isolate", "no finally", "leak", _ISOLATE, "        os._exit(child())\n"),
    Wrong("lab02-isolate", "returns nothing", "pid status leak", "    return pid\n", ""),
    Wrong(
        "lab02-isolate",
        "runs child in the caller",
        "new caller pid status leak",
        "pid = namespace.clone(flags)\n    if pid == 0:\n" + _ISOLATE,
        "pid = child()\n",
    ),
    Wrong(
        "lab02-init",
        "execs as PID 1",
        "child status reaps forwards prompt",
        "program = os.fork()",
        "program = 0",
    ),
    Wrong("lab02-init", "waits for its program only", "reaps", "os.wait()", "os.waitpid(program, 0)"),
    Wrong("lab02-init", "no forwarding", "forwards", _HANDLER, "        pass\n"),
    Wrong(
        "lab02-init",
        "forwards SIGTERM only",
        "forwards",
        '("TERM", "INT", "HUP", "QUIT", "USR1", "USR2")',
        '("TERM",)',
    ),
    Wrong(
        "lab02-init",
        "returns at the first child's end",
        "reaps",
        "        if pid == program:\n",
        "        if True:\n",
    ),
    Wrong(
        "lab02-init",
        "waits for all children",
        "prompt",
        _INIT_RETURN,
        """\
            result = code if code >= 0 else 128 - code
            while True:
                try:
                    os.wait()
                except ChildProcessError:
                    return result
""",
    ),
    Wrong(
        "lab02-init",
        "returns the wait status itself",
        "status forwards prompt",
        _INIT_RETURN,
        "            return wait_status\n",
    ),
    Wrong(
        "lab02-init",
        "the child returns on a failed exec",
        "status",
        "        finally:\n            os._exit(127)\n",
        "        finally:\n            pass\n",
    ),
    Wrong(
        "lab02-init",
        "exits instead of returning",
        "status forwards prompt",
        "return code if code >= 0 else 128 - code",
        "raise SystemExit(code if code >= 0 else 128 - code)",
    ),
]
