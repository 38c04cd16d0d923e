"""The command, and scripts, in processes of their own, forked from one that has imported all that they import.

To import torch and the rest takes each new process two seconds. Tests of how a process starts take ``subprocess``.
"""

import multiprocessing
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import textwrap
import weakref
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace

IMPORTED = ["firstspike.plots.save", "firstspike.sweeps.worker", "pytest", "sklearn.datasets"]


def processes():
    """What makes such processes. The one that they are forked from keeps the environment of the first call."""
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    forkserver.ensure_running()
    return context


class Forked:
    """A process with the methods of ``subprocess.Popen`` that tests call; trainings in it draw no figures at their end.

    Its arguments are those of the command, or a script and what it takes. ``before`` is called first, without
    arguments.
    """

    def __init__(self, *arguments, cwd=None, before=None):
        folder = tempfile.mkdtemp()
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.files = [Path(folder) / name for name in ("out", "err")]
        given = (self.files, dict(os.environ), Path(cwd or ".").resolve(), before, [*map(str, arguments)])
        self.process = processes().Process(target=_work, args=given)
        self.process.start()
        self.pid, self.kill, self.terminate = self.process.pid, self.process.kill, self.process.terminate

    @property
    def returncode(self):
        return self.process.exitcode

    def poll(self):
        return self.returncode

    def send_signal(self, number):
        os.kill(self.pid, number)

    def wait(self, timeout=300):
        self.process.join(timeout)
        assert self.returncode is not None, f"the process does not end in {timeout} seconds"
        return self.returncode

    def communicate(self, timeout=300):
        """What it has written, once it has ended."""
        self.wait(timeout)
        return tuple(file.read_text() for file in self.files)


def run(*arguments, **options):
    """As ``subprocess.run`` with captured text."""
    process = Forked(*arguments, **options)
    said = process.communicate()
    return subprocess.CompletedProcess(arguments, process.returncode, *said)


def run_code(code, *arguments, **options):
    """As ``subprocess.run`` of ``python -c``."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "code.py"
        file.write_text(textwrap.dedent(code))
        return run(file, *arguments, **options)


def _work(files, environment, folder, before, arguments):
    from firstspike.cli import main
    from firstspike.plots import save
    from firstspike.sweeps import worker

    for number, file in enumerate(files, 1):
        with file.open("wb") as stream:
            os.dup2(stream.fileno(), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    save.draw_after_training = lambda run: None
    forks = SimpleNamespace(get_context=lambda name: processes(), parent_process=multiprocessing.parent_process)
    worker.multiprocessing = forks  # workers of a sweep, too
    if before:
        before()
    script = arguments[0].endswith(".py")
    sys.argv = arguments if script else ["firstspike", *arguments]
    if script:
        runpy.run_path(arguments[0], run_name="__main__")
    else:
        main()
