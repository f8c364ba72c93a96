"""Completion as a person meets it: the Tab key in an interactive shell."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

# How each shell is started without a person's own settings, and what it is then told.
SHELLS = {
    "bash": (["--noprofile", "--norc", "-i"], "bind 'set enable-bracketed-paste off'; PS1='> '"),
    "zsh": (
        ["-f", "-i"],
        "unsetopt ZLE_BRACKETED_PASTE PROMPT_SP; PS1='> '; autoload -U compinit; compinit -u -D",
    ),
}


class Typist:
    """Types into an interactive shell on a terminal of its own, and reads what the shell shows."""

    def __init__(self, shell, folder):
        mine, theirs = os.openpty()
        arguments, setup = SHELLS[shell]
        # the directory of this environment first, where the command lies
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.terminal = mine
        self.shell = subprocess.Popen(
            [shutil.which(shell), *arguments], stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder,
            env={**os.environ, "PATH": path, "TERM": "dumb", "HISTFILE": ""}, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self.type(f'{setup}; eval "$(_DASKLMM_COMPLETE={shell}_source dasklmm)"; echo rea""dy\n')
        self.shown("ready")

    def type(self, text):
        os.write(self.terminal, text.encode())

    def shown(self, text):
        """Whether the shell shows a text; it has half a minute."""
        seen, end = "", time.monotonic() + 30
        while text not in seen and time.monotonic() < end:
            if select.select([self.terminal], [], [], 0.5)[0]:
                seen += os.read(self.terminal, 4096).decode(errors="replace")
        assert text in seen, seen

    def completes(self, typed, whole):
        """The Tab key makes one text another; the line is then cleared."""
        self.type(f"{typed}\t")
        self.shown(whole)
        self.type("\x15")

    def leave(self):
        self.shell.kill()
        self.shell.wait()
        os.close(self.terminal)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_tab_key(shell, tmp_path):
    """Commands, options, choices and files complete in a real shell."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "cohort.bed").touch()
    (tmp_path / "traits.tsv").touch()
    typist = Typist(shell, tmp_path)
    try:
        typist.completes("dasklmm gw", "dasklmm gwas ")
        typist.completes("dasklmm gwas --variance", "--variance-ratio ")
        typist.completes("dasklmm gwas --variance-ratio per", "per-variant ")
        typist.completes("dasklmm gwas --field dos", "dosage ")
        typist.completes("dasklmm gwas coh", "cohort.bed ")
        typist.completes("dasklmm gwas cohort.bed --pheno tr", "traits.tsv ")
        typist.completes("dasklmm gwas cohort.bed --kinship cent", "centered ")
        typist.completes("dasklmm gwas cohort.bed --kinship co", "cohort.bed ")
    finally:
        typist.leave()
